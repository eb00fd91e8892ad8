package handlers_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/handlers"
	managementv1 "github.com/muster-id/muster/proto/zitadel/management/v1"
)

// TestWhoIsMailed: a single import of somebody who can't get in is mailed, and
// so is each _resend_initialization over every protocol; an import of many
// mails nobody unless it is asked to.
func TestWhoIsMailed(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "mail")
	s := start(t, func(d *handlers.Deps) { withJobs(d) })
	mail, err := consumers.NewMail(s.store, consumers.MailConfig{Folder: dir, Origin: "https://id.example.org", PerSecond: 1000})
	if err != nil {
		t.Fatal(err)
	}
	subscriber, err := consumers.NewSubscriber(s.store, mail.Subscription(consumers.Config{Flush: 10 * time.Millisecond}))
	if err != nil {
		t.Fatal(err)
	}
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	router.AddMiddleware(consumers.Classify)
	router.AddConsumerHandler("mail", consumers.MailConsumer, subscriber, mail.Handle)
	ended := make(chan struct{})
	go func() { defer close(ended); _ = router.Run(context.Background()) }()
	t.Cleanup(func() { _ = router.Close(); <-ended })
	<-router.Running()

	// mails waits until everything so far is handled, and counts.
	mails := func() int {
		t.Helper()
		head, err := s.store.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the mail consumer", func() bool {
			list, err := consumers.NewAdmin(s.store).List(t.Context(), consumers.MailConsumer)
			return err == nil && list[0].Checkpoint.Position >= head.Position
		})
		found, err := filepath.Glob(filepath.Join(dir, "*.eml"))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	expect := func(what string, want int) {
		t.Helper()
		if n := mails(); n != want {
			t.Errorf("%s: %d mails so far, want %d", what, n, want)
		}
	}
	id, _ := s.add(t, with("email", `{"email":"ada@example.test"}`))
	expect("an import of one", 1)
	want(t, s.rest(t, "POST", "/management/v1/users/"+id+"/_resend_initialization", "{}"), 200, 0, "")
	expect("resent over REST", 2)
	for i, p := range protocols {
		_, a := rpc[managementv1.ResendHumanInitializationRequest, managementv1.ResendHumanInitializationResponse](t, s, i,
			"/zitadel.management.v1.ManagementService/ResendHumanInitialization", &managementv1.ResendHumanInitializationRequest{UserId: id})
		want(t, answer{Code: a.Code, Details: a.Details}, 0, 0, "")
		expect("resent over "+p.name, 3+i)
	}
	sent := 2 + len(protocols)
	many := func(from, to int, query string) {
		t.Helper()
		var lines strings.Builder
		for n := from; n < to; n++ {
			fmt.Fprintf(&lines, `{"userName":"n%[1]d","profile":{"firstName":"Ada","lastName":"Lind"},"email":{"email":"n%[1]d@example.test"}}`+"\n", n)
		}
		a := s.rest(t, "POST", importPath+query, lines.String(), "Content-Type", "application/x-ndjson")
		if a.HTTP != 200 || strings.Count(string(a.Body), `"created"`) < to-from {
			t.Fatalf("%d %s", a.HTTP, a.Body)
		}
	}
	many(0, 5, "")
	expect("an import of many", sent)
	many(5, 8, "?notify=none")
	expect("an import of many with notify=none", sent)
	want(t, s.rest(t, "POST", "/admin/v1/import", `{"timeout":"1m","dataOrgs":{"orgs":[{"orgId":"org-1","humanUsers":[{"userId":"d1","user":{"userName":"d1",
		"profile":{"firstName":"Ada","lastName":"Lind"},"email":{"email":"d1@example.test"}}}]}]}}`), 200, 0, "")
	expect("a document", sent)
	many(8, 11, "?notify=init")
	expect("an import of many with notify=init", sent+3)
}
