#!/bin/sh
# Forks of CPython, and a storm of misses, between two guests, by rc and by tcp in turns; tests/rxe/run runs it in
# both. Each guest has an agent of either fabric. Prints what rc_forks.py does, and:
#
#   counted FABRIC JSON      the counters of host-b's agent, behind each fork; the first before all that count
#   stormed FABRIC NUMBER    pages a second, of 64 threads
#   rung FABRIC JSON         the same counters after each storm
#   read FABRIC JSON         4 KiB and 128 KiB READs of that fabric, asleep while they wait
#   peer WHAT NUMBER         perftest's, asleep while it waits: us (typical), MiB/s (average)
#
# ROUNDS: how many of each; PYTHON: the interpreter of host-a.
set -eu
JOB=rc_forks
. /host/files/rc_common.sh
THREADS=64
PAGES=4
# Words of a block, of which a storm touches one for each thread and page; blocks are a power of two.
BLOCK_WORDS=2048
# Bytes that an emulator copies into the arena in a second, at least.
FILL_BYTES=16777216
# Seconds that one run of perftest may take; a client that comes before its server listens may hang, or crash.
PEER_S=60
# Who is first in round $1; rc_forks.py does the same.
order() { if [ $(($1 % 2)) = 0 ]; then echo rc tcp; else echo tcp rc; fi; }
port() { if [ "$1" = rc ]; then echo 7370; else echo 7380; fi; }
# Until the file $1 is there, looking each $2 us.
await() { while ! [ -e "$1" ]; do usleep "$2"; done; }

words=$BLOCK_WORDS
while [ $words -lt $((BLOCK_WORDS * THREADS * PAGES * ROUNDS)) ]; do words=$((words * 2)); done
cp /host/files/mitosis /host/files/mitosis-reads /host/files/suite-told /bin/
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
[ "$NODE" = 2 ] || (umask 077 && head -c 32 /dev/urandom >/host/secret)
barrier copied
name=host-a; [ "$NODE" = 1 ] || name=host-b

agents=""
for fabric in rc tcp; do
  require=""; [ $fabric = tcp ] || require=,require
  MITOSIS_FABRIC=$fabric$require mitosis agent --listen "$(port $fabric)" --advertise $name:"$(port $fabric)" \
    --socket /tmp/$fabric.sock --secret-file /host/secret >/tmp/agent.$fabric 2>/tmp/agent.$fabric.err &
  agents="$agents $!"
  while ! grep -qs ready /tmp/agent.$fabric; do usleep 50000; done
done
barrier agents

if [ "$NODE" = 1 ]; then
  "$PYTHON" /host/files/rc_forks.py "$ROUNDS"
  for fabric in rc tcp; do
    mkfifo /tmp/held.$fabric
    sleep 100000 >/tmp/held.$fabric &
    MITOSIS_AGENT=/tmp/$fabric.sock suite-told $words </tmp/held.$fabric >/host/handle.$fabric &
    while ! grep -qs mitosis:// /host/handle.$fabric; do usleep 50000; done
    sleep $((1 + 8 * words / FILL_BYTES))
  done
  turn=0
  while [ $turn -lt "$ROUNDS" ]; do
    for fabric in $(order $turn); do
      MITOSIS_AGENT=/tmp/$fabric.sock mitosis resume "$(cut -d' ' -f1 /host/handle.$fabric)" \
        --on host-b:"$(port $fabric)" --payload "storm $THREADS $PAGES $turn;exit 0" |
        awk -v fabric=$fabric '/^stormed/ { print "stormed", fabric, $2 / $5 * 1e9 }'
      : >/host/$fabric.storm.$turn.ended
      await /host/$fabric.storm.$turn.counted 20000
    done
    turn=$((turn + 1))
  done
else
  count() { echo "$1 $2 $(MITOSIS_AGENT=/tmp/$2.sock mitosis stats --json | tr -d ' \n')"; }
  number=-1
  while [ $number -lt "$ROUNDS" ]; do
    for fabric in $(order $number); do
      await /host/$fabric.$number.ended 20000
      count counted $fabric
      : >/host/$fabric.$number.counted
    done
    number=$((number + 1))
  done
  number=0
  while [ $number -lt "$ROUNDS" ]; do
    for fabric in $(order $number); do
      await /host/$fabric.storm.$number.ended 20000
      count rung $fabric
      : >/host/$fabric.storm.$number.counted
    done
    number=$((number + 1))
  done
fi
barrier stormed
kill $agents
wait $agents || true
barrier ended

# What the network alone takes, in the same boot.
if [ "$NODE" = 1 ]; then
  mkfifo /tmp/held
  sleep 100000 >/tmp/held &
  mitosis-reads own "$SELF" 33554432 --rc </tmp/held >/host/owner-beside.json &
  (while :; do ib_read_lat -e -s 4096 -n 100 -p 18611 -d rxe0 -F >/dev/null 2>&1; done) &
  (while :; do ib_read_bw -e -s 131072 -n 60 -t 16 -o 16 -p 18612 -d rxe0 -F >/dev/null 2>&1; done) &
  while ! [ -s /host/owner-beside.json ]; do usleep 50000; done
  barrier owned-beside
  barrier read-beside
  exit 0
fi
barrier owned-beside
side=$(side /host/owner-beside.json)
mkfifo /tmp/asks-rc /tmp/says-rc /tmp/asks-tcp /tmp/says-tcp
mitosis-reads read rc "$side" --source "$SELF" </tmp/asks-rc >/tmp/says-rc &
exec 3>/tmp/asks-rc 4</tmp/says-rc
mitosis-reads read tcp "$side" </tmp/asks-tcp >/tmp/says-tcp &
exec 5>/tmp/asks-tcp 6</tmp/says-tcp
# The column $1 of what the rest prints in its only row.
peer() {
  column=$1
  shift
  tries=0
  until said=$(timeout $PEER_S "$@" -d rxe0 -F "$PEER" 2>/dev/null); do
    tries=$((tries + 1))
    [ $tries -lt 20 ] || fail "$* does not run"
    usleep 50000
  done
  echo "$said" | figure "$column"
}
for fabric in rc tcp; do ask $fabric serial 4096 100 sleep; echo "read $fabric $answer"; done
round=0
while [ $round -lt "$ROUNDS" ]; do
  for fabric in $(order $round); do
    ask $fabric serial 4096 40 sleep; echo "read $fabric $answer"
    ask $fabric window 131072 60 16 sleep; echo "read $fabric $answer"
  done
  echo "peer lat $(peer 5 ib_read_lat -e -s 4096 -n 100 -p 18611)"
  echo "peer bw $(peer 4 ib_read_bw -e -s 131072 -n 60 -t 16 -o 16 -p 18612)"
  round=$((round + 1))
done
barrier read-beside
