#!/bin/sh
# Forks of CPython, and a storm of misses, between two guests, by rc and by tcp in one boot; tests/rxe/run
# runs it in both. Prints what rc_forks.py does, and:
#
#   counted FABRIC JSON      the counters of host-b's agent, behind each fork; the first before all that count
#   stormed FABRIC NUMBER    pages a second, of 64 threads
#   rung FABRIC JSON         the same counters after each storm
#   read FABRIC WHAT JSON    4 KiB and 128 KiB READs of that fabric, asleep while they wait
#   peer WHAT NUMBER         perftest's, asleep while it waits: us (typical), MiB/s (average)
#
# ROUNDS: how many forks by each; PYTHON: the interpreter of host-a.
set -eu
THREADS=64
PAGES=4
# A block of 16 KiB for each touch of 30 rounds.
WORDS=16777216
cp /host/files/mitosis /host/files/mitosis-reads /host/files/suite-told /bin/
[ -s /host/secret ] || [ "$NODE" = 2 ] || (umask 077 && head -c 32 /dev/urandom >/host/secret.new && mv /host/secret.new /host/secret)
barrier copied
name=host-a; [ "$NODE" = 1 ] || name=host-b

for fabric in rc tcp; do
  MITOSIS_FABRIC=$fabric,require
  [ $fabric = rc ] || MITOSIS_FABRIC=tcp
  export MITOSIS_FABRIC
  mitosis agent --listen 7370 --advertise $name:7370 --secret-file /host/secret >/tmp/agent.$fabric 2>/tmp/agent.$fabric.err &
  agent=$!
  while ! grep -q ready /tmp/agent.$fabric; do usleep 50000; done
  barrier agents-$fabric
  if [ "$NODE" = 1 ]; then
    "$PYTHON" /host/files/rc_forks.py $fabric host-b "$ROUNDS"
    mkfifo /tmp/held.$fabric
    sleep 100000 >/tmp/held.$fabric &
    suite-told $WORDS </tmp/held.$fabric >/host/handle.$fabric &
    while ! grep -qs mitosis:// /host/handle.$fabric; do usleep 50000; done
    handle=$(cut -d' ' -f1 /host/handle.$fabric)
    sleep 8
    turn=0
    while [ $turn -lt "$ROUNDS" ]; do
      mitosis resume "$handle" --on host-b --payload "storm $THREADS $PAGES $turn;exit 0" |
        awk -v fabric=$fabric '/^stormed/ { print "stormed", fabric, $2 / $5 * 1e9 }'
      : >/host/$fabric.storm.$turn.ended
      while ! [ -e /host/$fabric.storm.$turn.counted ]; do usleep 20000; done
      turn=$((turn + 1))
    done
    : >/host/$fabric.over
  else
    number=-1
    while [ $number -lt "$ROUNDS" ]; do
      while ! [ -e /host/$fabric.$number.ended ]; do usleep 20000; done
      echo "counted $fabric $(mitosis stats --json | tr -d ' \n')"
      : >/host/$fabric.$number.counted
      number=$((number + 1))
    done
    number=0
    while [ $number -lt "$ROUNDS" ]; do
      while ! [ -e /host/$fabric.storm.$number.ended ]; do usleep 20000; done
      echo "rung $fabric $(mitosis stats --json | tr -d ' \n')"
      : >/host/$fabric.storm.$number.counted
      number=$((number + 1))
    done
    while ! [ -e /host/$fabric.over ]; do usleep 50000; done
  fi
  kill $agent
  wait $agent || true
  barrier ended-$fabric
done

# What the network alone takes, in the same boot.
if [ "$NODE" = 1 ]; then
  mkfifo /tmp/stdin
  sleep 100000 >/tmp/stdin &
  mitosis-reads own "$SELF" 33554432 --rc </tmp/stdin >/host/owner.json &
  (while :; do ib_read_lat -e -s 4096 -n 100 -p 18601 -d rxe0 -F >/dev/null 2>&1; done) &
  (while :; do ib_read_bw -e -s 131072 -n 60 -t 16 -o 16 -p 18602 -d rxe0 -F >/dev/null 2>&1; done) &
  while ! [ -s /host/owner.json ]; do usleep 50000; done
  barrier owned
  barrier read
  exit 0
fi
barrier owned
side=$(sed 's/.*: "\(.*\)".*/\1/' /host/owner.json)
for fabric in rc tcp; do
  source=""
  [ $fabric = tcp ] || source="--source $SELF"
  {
    echo "serial 4096 100 sleep"
    round=0
    while [ $round -lt "$ROUNDS" ]; do
      echo "serial 4096 40 sleep"
      echo "window 131072 60 16 sleep"
      round=$((round + 1))
    done
  } | mitosis-reads read $fabric "$side" $source | sed "s/^/read $fabric /"
done
round=0
row() { awk -v column="$1" 'heading { print $column; exit } /#bytes/ { heading = 1 }'; }
while [ $round -lt "$ROUNDS" ]; do
  until said=$(ib_read_lat -e -s 4096 -n 100 -p 18601 -d rxe0 -F "$PEER" 2>/dev/null); do usleep 50000; done
  echo "peer lat $(echo "$said" | row 5)"
  until said=$(ib_read_bw -e -s 131072 -n 60 -t 16 -o 16 -p 18602 -d rxe0 -F "$PEER" 2>/dev/null); do usleep 50000; done
  echo "peer bw $(echo "$said" | row 4)"
  round=$((round + 1))
done
barrier read
