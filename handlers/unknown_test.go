package handlers_test

import (
	"strings"
	"testing"
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/handlers/access"
	managementv1 "github.com/muster-id/muster/proto/zitadel/management/v1"
)

// TestEventsOfALaterProgram: while instances are replaced one by one, an older
// one meets events that it does not know. They are on their page and in the
// stream, with all but their fields, and among a user's changes; who asks for
// what the user is by now is told to try again, over every protocol, and
// nothing is written on top of what was not understood.
func TestEventsOfALaterProgram(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	id, position := s.add(t, with("hashedPassword", hash))
	if _, err := s.store.Append(t.Context(), eventstore.Append{
		Stream: id, Org: "org-1", Actor: "later", Expected: eventstore.Any, At: time.Now(),
		Events: []eventstore.NewEvent{
			{Type: "HumanMarried", Schema: 1, Data: []byte("open"), Personal: []byte("to-whom")},
			{Type: domain.TypeUserLocked, Schema: 2},
		},
	}); err != nil {
		t.Fatal(err)
	}
	s.add(t, nil)

	page := s.rest(t, "GET", "/v1/events?after="+position, "")
	want(t, page, 200, 0, "")
	lines := strings.Split(strings.TrimSpace(string(page.Body)), "\n")
	if len(lines) != 5 || !strings.Contains(lines[0], `"type":"HumanMarried","schema":1,"org":"org-1","actor":"later","at":"`) ||
		!strings.Contains(lines[0], `"data":{},"unknown":true,"sealed":true,"raw":"b3Blbg=="}`) ||
		!strings.Contains(lines[1], `"sequence":5,`) || !strings.Contains(lines[1], `"data":{},"unknown":true}`) || strings.Contains(lines[2], "unknown") {
		t.Errorf("page:\n%s", page.Body)
	}
	var streamed []string
	s.events(t, adminToken, "after="+position, "", func(_, typ string, _ document) bool {
		streamed = append(streamed, typ)
		return len(streamed) == 4
	})
	if got := strings.Join(streamed[:3], " "); got != "HumanMarried UserLocked HumanAdded" {
		t.Errorf("stream: %s", got)
	}

	changes := s.rest(t, "POST", "/management/v1/users/"+id+"/changes/_search", "{}")
	want(t, changes, 200, 0, "")
	if list, _ := changes.raw["result"].([]any); len(list) != 5 || !strings.Contains(string(changes.Body), "Human married") {
		t.Errorf("changes: %s", changes.Body)
	}
	want(t, s.rest(t, "POST", "/management/v1/users/nobody/changes/_search", "{}"), 404, 5, "QUERY-Dfbg2")
	want(t, s.rest(t, "POST", "/management/v1/users/"+id+"/changes/_search", "{}", "x-zitadel-orgid", "org-2"), 404, 5, "QUERY-Dfbg2")

	if _, err := s.store.Append(t.Context(), eventstore.Append{
		Stream: "later-still", Org: "org-1", Actor: "later", Expected: eventstore.NoStream, At: time.Now(),
		Events: []eventstore.NewEvent{{Type: "AndroidAdded", Schema: 1}},
	}); err != nil {
		t.Fatal(err)
	}
	want(t, s.rest(t, "POST", "/management/v1/users/later-still/changes/_search", "{}"), 503, 14, "MUSTER-newer")

	viewer := "Bearer " + s.token(t, "org-1", access.OrgUserViewer)
	want(t, s.rest(t, "GET", "/management/v1/users/"+id, "", "Authorization", viewer), 503, 14, "MUSTER-newer")
	want(t, s.rest(t, "POST", "/management/v1/users/"+id+"/_deactivate", "{}"), 503, 14, "MUSTER-newer")
	for i, p := range protocols {
		_, a := rpc[managementv1.GetUserByIDRequest, managementv1.GetUserByIDResponse](t, s, i, "/zitadel.management.v1.ManagementService/GetUserByID", &managementv1.GetUserByIDRequest{Id: id})
		if a.Code != 14 || a.id() != "MUSTER-newer" {
			t.Errorf("%s: %d %s", p.name, a.Code, a.Message)
		}
	}
}
