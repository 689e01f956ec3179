#!/usr/bin/env bash
# What `make install` puts below a prefix is used from there, as programs would, and taken away again. Needs root,
# as the agent that it starts does. Its last line is 'N passed, N failed'.
#
#     packaging/test.sh TARGET
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=$(realpath "$1")
work=$(mktemp -d)
readonly target work prefix=$work/usr RUN_SECONDS=60
export target work prefix
agent=
clean() {
  [[ -z $agent ]] || { kill "$agent" && wait "$agent"; } 2>/dev/null || true
  rm -rf "$work"
}
trap clean EXIT

passed=0
failed=0
# check NAME COMMAND: in a shell of its own, in which the first failure is the last.
check() {
  local output
  if output=$(timeout "$RUN_SECONDS" bash -euo pipefail -c "$2" 2>&1); then
    passed=$((passed + 1))
    echo "ok      $1"
  else
    failed=$((failed + 1))
    echo "FAILED  $1"
  fi
  sed 's/^/        /' <<<"$output"
}

config() { PKG_CONFIG_PATH=$prefix/lib/pkgconfig pkg-config "$@" mitosis; }

compiles_and_forks() {
  local flags
  flags=$(config --cflags --libs)
  # shellcheck disable=SC2086 # flags are words
  cc -o "$work/fork_to_host" examples/c/fork_to_host.c $flags
  LD_LIBRARY_PATH=$prefix/lib MITOSIS_AGENT=$work/agent.sock "$work/fork_to_host"
}

is_linked_statically() {
  local flags
  flags=$(config --static --cflags --libs)
  # shellcheck disable=SC2086
  cc -o "$work/static" examples/c/fork_to_host.c ${flags/-lmitosis/-l:libmitosis.a}
  [[ $(ldd "$work/static") != *libmitosis* ]]
  MITOSIS_AGENT=$work/agent.sock "$work/static"
}

has_its_soname() {
  readelf -d "$prefix/lib/libmitosis.so" | grep 'SONAME.*\[libmitosis\.so\.0\]'
  readelf -d "$prefix/lib/libmitosis.so" | grep 'FLAGS_1.*NODELETE'
  [[ $(config --modversion) == "$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)" ]]
}

runs_a_program() {
  # shellcheck disable=SC2016 # the other shell's own
  MITOSIS_AGENT=$work/agent.sock "$prefix/bin/mitosis" run -- sh -c 'grep libmitosis_preload "/proc/$$/maps"'
}

tells_systemd() {
  "$target/venv/bin/python" - "$prefix/bin/mitosis" "$work" <<'EOF'
import os, signal, socket, subprocess, sys
program, work = sys.argv[1:]
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
    told.bind(f"{work}/notify")
    told.settimeout(30)
    env = dict(os.environ, NOTIFY_SOCKET=f"{work}/notify")
    agent = subprocess.Popen([program, "agent", "--socket", f"{work}/other.sock"], env=env)
    try:
        assert told.recv(64) == b"READY=1"
        assert os.path.exists(f"{work}/other.sock"), "it is not ready"
    finally:
        agent.send_signal(signal.SIGTERM)
        agent.wait()
EOF
}

completes() {
  # shellcheck source=/dev/null
  source "$prefix/share/bash-completion/completions/mitosis"
  complete -p mitosis
  grep -q '#compdef mitosis' "$prefix/share/zsh/site-functions/_mitosis"
  grep -q 'complete -c mitosis' "$prefix/share/fish/vendor_completions.d/mitosis.fish"
}

names_only_the_prefix() {
  packaging/install.sh install "$target" /opt/mitosis "$work/package"
  grep '^prefix=/opt/mitosis$' "$work/package/opt/mitosis/lib/pkgconfig/mitosis.pc"
  grep '^ExecStart=/opt/mitosis/bin/mitosis agent$' "$work/package/opt/mitosis/lib/systemd/system/mitosis-agent.service"
  grep '^RestartKillSignal=SIGUSR2$' "$work/package/opt/mitosis/lib/systemd/system/mitosis-agent.service"
  [[ -z $(grep -rIl "$work" "$work/package") ]]
}

leaves_nothing() {
  packaging/install.sh uninstall "$target" "$prefix"
  packaging/install.sh uninstall "$target" /opt/mitosis "$work/package"
  [[ -z $(find "$prefix" "$work/package" ! -type d -o -path '*/doc/mitosis') ]]
}

refuses() { ! packaging/install.sh install "$target" "$1"; }

export -f config compiles_and_forks is_linked_statically has_its_soname runs_a_program tells_systemd completes
export -f names_only_the_prefix leaves_nothing refuses

packaging/install.sh install "$target" "$prefix"
"$prefix/bin/mitosis" agent --socket "$work/agent.sock" >"$work/log" 2>&1 &
agent=$!
for _ in {1..100}; do
  grep -q 'ready on' "$work/log" && break
  sleep 0.1
done
check 'C, by pkg-config' compiles_and_forks
check 'C, the static library' is_linked_statically
check 'the shared library has its name and version' has_its_soname
check 'mitosis run finds the preload library' runs_a_program
check 'systemd is told when the agent is ready' tells_systemd
check 'shells complete' completes
check 'DESTDIR stands in no file' names_only_the_prefix
check 'a relative PREFIX is refused' 'refuses usr'
check 'a PREFIX with a space is refused' 'refuses "/opt/a b"'
check 'uninstall leaves nothing' leaves_nothing
echo "$passed passed, $failed failed"
((failed == 0))
