package chaos

import (
	"fmt"
	"sync"
)

// ledger is what one consumer's receiver got. It acts once for each effect id,
// as every receiver should.
type ledger struct {
	mu      sync.Mutex
	last    map[string]int64  // the last sequence of each stream
	effects map[string]string // stream and sequence of each effect id
	ids     map[string]string // effect id of each stream and sequence
	// deliveries counts all, repeats those that were known already.
	deliveries, repeats int
	wrong               []string
}

func newLedger() *ledger {
	return &ledger{last: map[string]int64{}, effects: map[string]string{}, ids: map[string]string{}}
}

// take enters a delivery. Wrong is what was skipped, came out of order, has
// another's effect id, or a second one.
func (l *ledger) take(effect, stream string, sequence int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deliveries++
	what := fmt.Sprintf("%s/%d", stream, sequence)
	switch known := l.effects[effect]; {
	case known == what:
		l.repeats++
		return
	case known != "":
		l.complain("effect %s is of %s and of %s", effect, known, what)
	case l.ids[what] != "":
		l.complain("%s has effects %s and %s", what, l.ids[what], effect)
	case sequence != l.last[stream]+1:
		l.complain("%s came after sequence %d", what, l.last[stream])
	}
	l.effects[effect], l.ids[what], l.last[stream] = what, effect, max(sequence, l.last[stream])
}

func (l *ledger) complain(format string, args ...any) {
	if len(l.wrong) < 10 {
		l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
	}
}

// missing compares with the streams' true ends, but for the one that is parked.
func (l *ledger) missing(ends map[string]int64, parked string) (n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for stream, end := range ends {
		if stream != parked {
			n += end - l.last[stream]
		}
	}
	return n
}
