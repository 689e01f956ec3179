// A C++ program that knows nothing of Mitosis: workers that stand at a queue, one that sleeps, and a main
// thread that waits for `go` and then has all of them work.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <fstream>
#include <functional>
#include <future>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <queue>
#include <shared_mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

class Pool {
public:
    explicit Pool(unsigned threads)
    {
        for (unsigned i = 0; i < threads; i++)
            workers_.emplace_back([this] { work(); });
    }

    ~Pool()
    {
        {
            std::lock_guard lock(mutex_);
            over_ = true;
        }
        change_.notify_all();
        for (auto &worker : workers_)
            worker.join();
    }

    std::future<long> submit(std::function<long()> job)
    {
        std::packaged_task<long()> task(std::move(job));
        auto result = task.get_future();
        {
            std::lock_guard lock(mutex_);
            jobs_.push(std::move(task));
        }
        change_.notify_one();
        return result;
    }

private:
    void work()
    {
        for (;;) {
            std::unique_lock lock(mutex_);
            change_.wait(lock, [this] { return over_ || !jobs_.empty(); });
            if (jobs_.empty())
                return;
            auto job = std::move(jobs_.front());
            jobs_.pop();
            lock.unlock();
            job();
        }
    }

    std::mutex mutex_;
    std::condition_variable change_;
    std::queue<std::packaged_task<long()>> jobs_;
    std::vector<std::thread> workers_;
    bool over_ = false;
};

std::shared_mutex table_lock;
std::map<std::string, long> table;
thread_local long calls = 0;

long look_up(int number)
{
    calls++;
    std::shared_lock lock(table_lock);
    const auto found = table.find("key " + std::to_string(number));
    if (found == table.end())
        throw std::out_of_range("no such key");
    return found->second;
}

} // namespace

int main(int argc, char **argv)
{
    for (int i = 0; i < 20000; i++)
        table["key " + std::to_string(i)] = 3L * i;
    Pool pool(8);
    std::atomic<bool> over = false;
    std::atomic<long> ticks = 0;
    std::thread ticker([&] {
        while (!over) {
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
            ticks++;
        }
    });
    std::vector<std::future<long>> before;
    for (int i = 0; i < 100; i++)
        before.push_back(pool.submit([i] { return look_up(i); }));
    for (auto &result : before)
        result.wait();
    std::cout << "standing" << std::endl;
    while (!std::ifstream(argc > 1 ? argv[1] : "go"))
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    const long ticked = ticks;
    long sum = 0;
    std::vector<std::future<long>> after;
    for (int i = 0; i < 20000; i++)
        after.push_back(pool.submit([i] { return look_up(i); }));
    for (auto &result : after)
        sum += result.get();
    bool thrown = false;
    try {
        pool.submit([] { return look_up(-1); }).get();
    } catch (const std::out_of_range &) {
        thrown = true;
    }
    while (ticks < ticked + 3)
        std::this_thread::yield();
    over = true;
    ticker.join();
    std::cout << "sum " << sum << (thrown ? ", thrown" : ", not thrown") << std::endl;
    return 0;
}
