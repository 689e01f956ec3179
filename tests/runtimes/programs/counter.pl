# Perl that knows nothing of Mitosis: keeps words, and serves them on the unix socket that it is given.
#
# A line "set WORD VALUE", "get WORD", "count", "sum", "rand", "pid" or "end" gets a line back.
use strict;
use warnings;
use IO::Socket::UNIX;

my $path = shift or die "usage: counter.pl SOCKET\n";
my %words = map { ("word$_" => $_ * $_) } 1 .. 50_000;
my $big = join ',', map { $words{"word$_"} } 1 .. 50_000;
my $listener = IO::Socket::UNIX->new(Local => $path, Listen => 16) or die "$path: $!\n";
local $SIG{ALRM} = sub { $words{ticks}++; alarm 1; };
alarm 1;
$| = 1;
print "ready\n";
while (1) {
    my $connection = $listener->accept or next;
    while (defined(my $line = <$connection>)) {
        my ($verb, $word, $value) = split ' ', $line;
        my $answer = '?';
        if ($verb eq 'set') { $words{$word} = $value; $answer = 'ok'; }
        elsif ($verb eq 'get') { $answer = $words{$word} // 'none'; }
        elsif ($verb eq 'count') { $answer = keys %words; }
        elsif ($verb eq 'sum') {
            my $sum = 0;
            $sum += $_ for map { $words{"word$_"} } 1 .. 50_000;
            my $again = join ',', map { $words{"word$_"} } 1 .. 50_000;
            $answer = "$sum " . ($again eq $big ? 'whole' : 'broken');
        }
        elsif ($verb eq 'rand') { $answer = rand; }
        elsif ($verb eq 'pid') { $answer = $$; }
        elsif ($verb eq 'end') { alarm 0; exit 6; }
        print $connection "$answer\n";
    }
}
