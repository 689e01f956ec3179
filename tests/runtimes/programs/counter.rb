# Ruby that knows nothing of Mitosis: keeps words, and serves them on the unix socket that it is given; one thread
# a connection, two that tick. To interrupt a thread that waits, Ruby needs its timer (timer_create).
#
# A line "set WORD VALUE", "get WORD", "count", "sum", "rand", "interrupt", "pid" or "end" gets a line back.
require 'socket'

words = (1..50_000).to_h { |n| ["word#{n}", n * n] }
ticks = Queue.new
Thread.new { loop { sleep 0.05; ticks << 1 } }
Thread.new { loop { words['ticks'] = (words['ticks'] || 0) + ticks.pop } }
lock = Mutex.new
listener = UNIXServer.new(ARGV.fetch(0))
$stdout.sync = true
puts 'ready'
loop do
  Thread.new(listener.accept) do |connection|
    while (line = connection.gets)
      verb, word, value = line.split
      answer = lock.synchronize do
        case verb
        when 'set' then words[word] = value; 'ok'
        when 'get' then words.fetch(word, 'none')
        when 'count' then words.size
        when 'sum'
          GC.start
          "#{(1..50_000).sum { |n| words["word#{n}"] }} whole"
        when 'rand' then rand
        when 'interrupt' then Thread.new { sleep }.tap { |thread| sleep 0.05; thread.kill }.join(5) ? 'done' : 'lost'
        when 'pid' then Process.pid
        when 'end' then exit!(6)
        else '?'
        end
      end
      connection.puts answer
    end
  end
end
