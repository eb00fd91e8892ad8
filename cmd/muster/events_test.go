package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// TestEventsOfALaterProgramArePrinted: an operator sees that they are there, and
// everything around them; only a damaged event ends the list.
func TestEventsOfALaterProgramArePrinted(t *testing.T) {
	events := func() []eventstore.Event {
		return []eventstore.Event{
			{Position: 1, Stream: "ada", Sequence: 1, Type: "HumanMarried", Schema: 1, Data: []byte{0xff}, Sealed: []byte("x")},
			{Position: 2, Stream: "ada", Sequence: 2, Type: domain.TypeUserLocked, Schema: 2},
			{Position: 3, Stream: "ada", Sequence: 3, Type: domain.TypeUserUnlocked, Schema: 1},
			{Position: 4, Stream: consumers.StreamPrefix + "crm", Sequence: 1, Type: consumers.TypeEventSkipped, Schema: 1, Data: []byte("{}")},
		}
	}
	unknown := []bool{true, true, false, false}
	for _, inJSON := range []bool{false, true} {
		var out bytes.Buffer
		p := printer{events: &eventsCmd{JSON: inJSON}, w: &out}
		if _, err := p.print(t.Context(), nil, events()); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 4 {
			t.Fatalf("%s", out.String())
		}
		for i, line := range lines {
			if !inJSON {
				if strings.Contains(line, "unknown") != unknown[i] || strings.Contains(line, "sealed") != (i == 0) {
					t.Errorf("%s", line)
				}
				continue
			}
			var e struct {
				Type     string
				Unknown  bool
				Personal string
				Fields   map[string]any
			}
			if err := json.Unmarshal([]byte(line), &e); err != nil || e.Unknown != unknown[i] || len(e.Fields) != 0 || e.Type != events()[i].Type || (e.Personal == "sealed") != (i == 0) {
				t.Errorf("%s, %v", line, err)
			}
		}
	}
	damaged := []eventstore.Event{{Position: 7, Type: domain.TypeHumanAdded, Schema: 1, Data: []byte{0xff}}}
	if _, err := (&printer{events: &eventsCmd{}, w: &bytes.Buffer{}}).print(t.Context(), nil, damaged); err == nil || !strings.Contains(err.Error(), "position 7") {
		t.Errorf("a damaged event: %v", err)
	}
}
