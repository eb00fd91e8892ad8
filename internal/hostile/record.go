package hostile

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/muster-id/muster/eventstore"
)

// payload is the open part of every event, so that the log alone tells which
// append an event belongs to and what that append was to do.
type payload struct {
	Op string `json:"o"`           // the append, unique over all processes
	I  int    `json:"i"`           // this event's place in it
	N  int    `json:"n"`           // its number of events
	K  string `json:"k,omitempty"` // its idempotency key
	// The first event carries what happens to claims and what was expected.
	Expected eventstore.Expected `json:"x,omitempty"`
	Take     []string            `json:"t,omitempty"`
	Release  []string            `json:"r,omitempty"`
}

const claimKind = "name"

func claimOf(name string) eventstore.Claim { return eventstore.Claim{Kind: claimKind, Value: name} }

func parsePayload(e *eventstore.Event) (p payload, err error) {
	if err = json.Unmarshal(e.Data, &p); err != nil {
		return p, fmt.Errorf("position %d holds what nobody wrote: %w", e.Position, err)
	}
	return p, nil
}

// claimsOf folds one stream's events into the claims that it owns.
func claimsOf(_ string, events []eventstore.Event) ([]eventstore.Claim, error) {
	owned := map[string]bool{}
	for i := range events {
		p, err := parsePayload(&events[i])
		if err != nil {
			return nil, err
		}
		p.fold(func(name string) { owned[name] = true }, func(name string) { delete(owned, name) })
	}
	var claims []eventstore.Claim
	for name := range owned {
		claims = append(claims, claimOf(name))
	}
	return claims, nil
}

// fold tells what an append does to claims: what is taken and released at
// once is kept.
func (p *payload) fold(take, release func(name string)) {
	for _, name := range p.Release {
		release(name)
	}
	for _, name := range p.Take {
		take(name)
	}
}

// Verdicts of an append, as its caller learnt them.
const (
	done        = "done"        // committed
	refused     = "refused"     // the error says that nothing was appended
	unknown     = "unknown"     // the caller's deadline passed while it was under way
	wrongAnswer = "wrongAnswer" // the error may not happen
)

// ack is a line of what a writer has learnt. It is written with one system
// call before anything else is done; that outlives a kill -9 of the process.
// (Only the machine's own death would need a sync.)
type ack struct {
	Op       string              `json:"o"`
	Key      string              `json:"k,omitempty"`
	Verdict  string              `json:"v"`
	Why      string              `json:"w,omitempty"` // the error's text
	Expected eventstore.Expected `json:"x"`
	N        int                 `json:"n"`
	Stream   string              `json:"s,omitempty"`
	First    int64               `json:"f,omitempty"`
	Last     int64               `json:"l,omitempty"`
	Position eventstore.Position `json:"p,omitempty"`
	Repeated bool                `json:"r,omitempty"`
}

// readLines calls each with the whole lines of a file; a last line that a
// killed process has left unfinished is no line. It returns where the last
// whole line ends.
func readLines(path string, each func(line string) error) (end int64, err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for r := bufio.NewReader(f); ; {
		line, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return end, nil
		}
		if err == nil {
			end += int64(len(line))
			err = each(strings.TrimSuffix(line, "\n"))
		}
		if err != nil {
			return end, err
		}
	}
}

// sighting is an event that a reader was given.
type sighting struct {
	position eventstore.Position
	id       ulid.ULID
	sequence int64
	stream   string
}

func sightingOf(e *eventstore.Event) sighting {
	return sighting{e.Position, e.ID, e.Sequence, e.Stream}
}

func (s sighting) appendTo(b []byte) []byte {
	return fmt.Appendf(b, "%d %s %d %s\n", s.position, s.id, s.sequence, s.stream)
}

func parseSighting(line string) (s sighting, err error) {
	part := strings.SplitN(line, " ", 4)
	if len(part) != 4 {
		return s, fmt.Errorf("not a sighting: %q", line)
	}
	position, err := strconv.ParseInt(part[0], 10, 64)
	if err != nil {
		return s, err
	}
	if s.sequence, err = strconv.ParseInt(part[2], 10, 64); err != nil {
		return s, err
	}
	s.position, s.stream = eventstore.Position(position), part[3]
	s.id, err = ulid.ParseStrict(part[1])
	return s, err
}
