#!/usr/bin/env bash
# Builds and runs each example: on this host, with an agent that is started here and with one of its own,
# and from one sealed host to another; then docs/first-hour.md, and both demos, as `make demo` does. Needs root. Its last line is 'N passed, N failed'.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly CARGO=${CARGO:-cargo}
readonly READY_TRIES=100 # of 0.1 s
readonly RUN_SECONDS=60   # an example takes less than one
readonly DEMO_SECONDS=180 # some ten

python=$(realpath "${CARGO_TARGET_DIR:-target}")/venv/bin/python # by `make install-python`
readonly python
declare -rA python_says=([fork_to_host]='ended with 2' [many_children]='sum ')

passed=0
failed=0
agents=()

# check NAME TEXT COMMAND...: the command succeeds, in the time that it has, and its output holds TEXT.
check() {
  local name=$1 text=$2 output
  shift 2
  if output=$(timeout "${limit_seconds:-$RUN_SECONDS}" "$@" 2>&1) && [[ $output == *"$text"* ]]; then
    passed=$((passed + 1))
    echo "ok      $name"
  else
    failed=$((failed + 1))
    echo "FAILED  $name"
  fi
  sed 's/^/        /' <<<"$output"
}

stop_agents() {
  local pid
  for pid in ${agents[@]+"${agents[@]}"}; do
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  agents=()
}

# start_agent LOG COMMAND...: returns when it says that it is ready.
start_agent() {
  local log=$1 try
  shift
  "$@" </dev/null >"$log" 2>&1 &
  agents+=($!)
  for ((try = 0; try < READY_TRIES; try++)); do
    grep -q 'ready on' "$log" && return
    kill -0 "${agents[-1]}" 2>/dev/null || break
    sleep 0.1
  done
  echo "the agent is not ready; it said:" >&2
  cat "$log" >&2
  return 1
}

# Under `mitosis-hosts up`, which has made host-a and host-b.
between_hosts() {
  local dir=$1 host
  trap stop_agents EXIT
  for host in a b; do
    start_agent "$dir/agent-$host.log" "$MITOSIS_HOSTS_BIN" exec --host "$host" -- \
      "$dir/mitosis" agent --socket /run/mitosis-agent.sock \
      --listen 7370 --advertise "host-$host:7370" --secret-file "$dir/secret" || exit 1
  done
  local on_a=("$MITOSIS_HOSTS_BIN" exec --host a --env MITOSIS_AGENT=/run/mitosis-agent.sock
    --env LD_LIBRARY_PATH="$dir" --)
  check 'C: from host-a to host-b' 'host host-b' "${on_a[@]}" "$dir/fork_to_host" host-b
  check 'C, all threads: from host-a to host-b' 'right on host-b' "${on_a[@]}" "$dir/threads" host-b
  check 'Rust: from host-a to host-b' 'squares right' "${on_a[@]}" "$dir/fork_here" host-b
  check 'Node: from host-a to host-b' 'host host-b' "${on_a[@]}" node "$PWD/examples/node/fork_to_host.js" host-b
  local example
  for example in fork_to_host many_children; do
    check "Python: $example.py from host-a to host-b" "${python_says[$example]}" \
      "${on_a[@]}" "$python" "$PWD/examples/python/$example.py" host-b
  done
  echo "$passed $failed" >"$dir/between-hosts"
}

if [[ ${1:-} == --between-hosts ]]; then
  between_hosts "$2"
  exit
fi

[[ $(id -u) == 0 ]] || { echo 'examples/run-all.sh makes namespaces: run it as root' >&2; exit 1; }

# --- build --------------------------------------------------------------------------------------

"$CARGO" build --quiet --release -p mitosis-agent -p mitosis-hosts -p mitosis-examples
# Alone: together with the agent, the core would be built with all that the agent needs.
"$CARGO" build --quiet --release -p mitosis-capi
built=$(realpath "${CARGO_TARGET_DIR:-target}")/release
dir=$(mktemp -d)
trap 'stop_agents; rm -rf "$dir"' EXIT
cp "$built"/{mitosis,fork_here,libmitosis.so} "$dir"
ln -s libmitosis.so "$dir/libmitosis.so.0"
for example in fork_to_host threads hooks; do
  cc -std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -Iinclude "examples/c/$example.c" \
    -L"$dir" -lmitosis -lpthread -o "$dir/$example"
done
head -c 32 /dev/urandom >"$dir/secret"
chmod 600 "$dir/secret"

# --- on this host -------------------------------------------------------------------------------

export LD_LIBRARY_PATH=$dir
if start_agent "$dir/agent.log" "$dir/mitosis" agent --socket "$dir/agent.sock"; then
  check 'C: on this host' '32 MiB are right' env MITOSIS_AGENT="$dir/agent.sock" "$dir/fork_to_host"
  check 'C, all threads: on this host' 'right on' env MITOSIS_AGENT="$dir/agent.sock" "$dir/threads"
  check 'C, hooks: on this host' 'agree: yes' \
    env MITOSIS_AGENT="$dir/agent.sock" REHEARSAL_NOTE="$dir/rehearsed" "$dir/hooks" good
  check 'C, hooks: its children were rehearsed' '' rmdir "$dir/rehearsed"
  check 'C, a hook that fails' 'the after_resume hook' env MITOSIS_AGENT="$dir/agent.sock" "$dir/hooks" fails
  check 'C, a hook that hangs' 'has not returned after 200ms' \
    env MITOSIS_AGENT="$dir/agent.sock" "$dir/hooks" hangs
  check 'Rust: on this host' 'squares right' env MITOSIS_AGENT="$dir/agent.sock" "$dir/fork_here"
else
  failed=$((failed + 6))
fi
stop_agents
# The program is found beside the library, and beside the example.
check 'C: with an agent of its own' '32 MiB are right' env -u MITOSIS_AGENT "$dir/fork_to_host"
check 'Rust: with an agent of its own' 'squares right' env -u MITOSIS_AGENT "$dir/fork_here"

for example in fork_to_host many_children; do
  check "Python: $example.py with an agent of its own" "${python_says[$example]}" \
    env -u MITOSIS_AGENT "$python" "examples/python/$example.py"
done

check 'Node: with an agent of its own' 'squares right' env -u MITOSIS_AGENT node examples/node/fork_to_host.js

# --- from host to host --------------------------------------------------------------------------

"$built/mitosis-hosts" up --file "$dir/mitosis" --file "$dir/secret" -- \
  bash examples/run-all.sh --between-hosts "$dir" || true
if [[ -f $dir/between-hosts ]]; then
  read -r more_passed more_failed <"$dir/between-hosts"
  passed=$((passed + more_passed))
  failed=$((failed + more_failed))
else
  echo 'FAILED  from host to host: it did not come to the examples'
  failed=$((failed + 6))
fi

# --- the demos ----------------------------------------------------------------------------------

# Each fails by itself where the children on B are not right. What `make demo` has left in target/demo.json stays.
demo() {
  local limit_seconds=$DEMO_SECONDS
  check "$1" "$2" env MITOSIS_TEST_DEMO_JSON="$dir/demo.json" "$built/mitosis-hosts" up --file "$built/mitosis" -- "$python" "examples/demo/$3"
}
first_hour() {
  local limit_seconds=$DEMO_SECONDS
  check 'docs/first-hour.md, word by word' 'blocks were run as they stand' \
    "$python" examples/first_hour.py "$built/mitosis" "$built/mitosis-hosts"
}
first_hour

demo 'the demo of CPython' 'written to ' run.py
demo 'the demo of Node' 'the same pages, counted on' node_run.py
echo "$passed passed, $failed failed"
((failed == 0))
