# What the jobs of benches in guests share; sourced by each, which has set JOB, its name.

fail() { echo "$JOB: $*" >&2; exit 1; }

# The address in what `mitosis-reads own` has printed into the file $1.
side() { sed 's/.*: "\(.*\)".*/\1/' "$1"; }

# The figure in column $1 of the only row that perftest has printed, on standard input.
figure() { awk -v column="$1" 'heading { print $column; exit } /#bytes/ { heading = 1 }'; }

# What the reader by fabric $1 answers to the rest, in $answer. Descriptors: rc asks by 3 and answers by 4, tcp by 5
# and 6, dc by 7 and 8. An emulator that its host does not run for 67 ms is a silent peer: what was measured then
# is no sample.
ask() {
  fabric=$1
  shift
  lost=0
  while :; do
    case $fabric in
      rc) echo "$*" >&3; read -r answer <&4 ;;
      tcp) echo "$*" >&5; read -r answer <&6 ;;
      dc) echo "$*" >&7; read -r answer <&8 ;;
    esac || fail "the reader by $fabric has ended at: $*"
    case $answer in
      *lost*) lost=$((lost + 1)) ;;
      *) return ;;
    esac
    echo "$JOB: $answer" >&2
    [ $lost -lt 10 ] || fail "READs are lost again and again"
  done
}
