package handlers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/handlers/access"
)

// The log over HTTP, from any position: in pages of NDJSON, or as Server-Sent
// Events (https://html.spec.whatwg.org/multipage/server-sent-events.html) to
// who accepts text/event-stream. Each event is a consumers.Document with the
// sealed fields left out: ids, and nothing personal. An event that a later
// program wrote is there too, without fields and marked as unknown.

// throughHeader says up to which position a page answers the question: the
// after of the next page. With a filter it may be beyond the last event.
const throughHeader = "Muster-Through"

const (
	// maxStreams bounds the streams of Server-Sent Events that are open at a
	// time, each of which costs a connection and a goroutine.
	maxStreams = 256
	// streamCheck is how often an open stream looks whether its token is still
	// good: a revoked one gets nothing more after a second.
	streamCheck = time.Second - access.Freshness
	// streamBeat is how long a stream is silent at most.
	streamBeat = 15 * time.Second
	// streamPatience is how long a reader may take to accept what is sent.
	streamPatience = 30 * time.Second
	// streamPage is how many events are read and sent at a time.
	streamPage = 200
	// maxTypes bounds the types that a reader may choose.
	maxTypes = 100
)

var (
	errStreams = domain.NewError(domain.KindResourceExhausted, "MUSTER-streams", "Too many event streams are open")
	// errType goes on with the type that was asked for.
	errType  = domain.NewError(domain.KindInvalidArgument, "MUSTER-type", "There is no such type of event: ")
	errTypes = domain.NewError(domain.KindInvalidArgument, "MUSTER-types", "At most 100 types of events can be chosen")
)

// bindEvents serves the log to who may read the organisation's users. The
// installation's owner may ask for all organisations.
func (s *server) bindEvents() {
	s.streams = make(chan struct{}, maxStreams)
	s.serveOwn(endpoint{
		verb: http.MethodGet, path: "/v1/events", permission: access.UserRead, answer: media{"application/x-ndjson", "text/event-stream"},
		summary: "The organisation's events: a page of lines of JSON, or Server-Sent Events to who accepts text/event-stream",
		parameters: []parameter{
			{"after", "query", "The position behind which to begin: that of the last page's " + throughHeader + ".", aText},
			limParameter,
			{"types", "query", "Types of events, separated by commas; absent: all.", aText},
			{"allOrganisations", "query", "Of every organisation; needs " + string(access.IAMWrite) + ".", aFlag},
			{"Last-Event-ID", "header", "Where a stream of events goes on; takes precedence over after.", aText},
			minParameter,
		},
	}, func(e echo.Context, c *call) error {
		q, err := s.eventsQuery(e, c)
		if err != nil {
			return err
		}
		if accepts(e.Request(), "text/event-stream") {
			return s.streamEvents(e, c, q)
		}
		return s.pageEvents(e, c, q)
	})
}

// accepts reports whether a request names a media type among those it takes.
func accepts(r *http.Request, kind string) bool {
	for _, v := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(v, ",") {
			name, _, _ := strings.Cut(part, ";")
			if strings.EqualFold(strings.TrimSpace(name), kind) {
				return true
			}
		}
	}
	return false
}

// eventsQuery reads after, limit, types and allOrganisations. A browser that
// connects again says with Last-Event-ID where it was.
func (s *server) eventsQuery(e echo.Context, c *call) (eventstore.Query, error) {
	q := eventstore.Query{Org: c.org}
	after := e.QueryParam("after")
	if last := c.header.Get("Last-Event-ID"); last != "" {
		after = last
	}
	var err error
	if q.After, err = s.parsePosition(after); err != nil {
		return q, err
	}
	if q.Limit, err = listLimit(e); err != nil {
		return q, err
	}
	for _, v := range e.QueryParams()["types"] {
		for t := range strings.SplitSeq(v, ",") {
			if t = strings.TrimSpace(t); t == "" {
				continue
			}
			if len(q.Types) == maxTypes {
				return q, errTypes
			}
			if !knownType(t) {
				return q, noType(t)
			}
			q.Types = append(q.Types, t)
		}
	}
	all, err := everyOrganisation(e, c)
	if all {
		q.Org = ""
	}
	return q, err
}

// knownType reports whether events of a type can be in the log: the domain's,
// and the consumers' own.
func knownType(name string) bool {
	return name == consumers.TypeEventSkipped || slices.Contains(domain.EventTypes(), name)
}

// eventName is what a type's name looks like. What does not is not repeated in
// an error: it may be anything.
var eventName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.]{0,63}$`)

func noType(name string) error {
	if !eventName.MatchString(name) {
		name = "?"
	}
	return domain.NewError(errType.Kind, errType.ID, errType.Message+name)
}

func (s *server) pageEvents(e echo.Context, c *call, q eventstore.Query) error {
	ctx, cancel := context.WithTimeout(e.Request().Context(), s.deps.Timeout)
	defer cancel()
	if err := s.reach(ctx, c, ""); err != nil {
		return err
	}
	page, err := s.deps.Store.ReadPage(ctx, q)
	if err != nil {
		return err
	}
	var lines []byte
	for _, ev := range page.Events {
		if lines, err = consumers.AppendDocument(lines, ev); err != nil {
			return err
		}
		lines = append(lines, '\n')
	}
	h := e.Response().Header()
	h.Set(throughHeader, strconv.FormatInt(int64(page.Through), 10))
	h.Set("Content-Type", "application/x-ndjson")
	_, _ = e.Response().Write(lines) // the caller may be gone
	return nil
}

// streamEvents sends what there is and then what comes, until the reader goes
// away, the token is no good any more, or the service shuts down. The reader
// then connects again and goes on from the last id: positions with the history
// they count in, so that a reader never goes on in another one unawares.
func (s *server) streamEvents(e echo.Context, c *call, q eventstore.Query) error {
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		return errStreams
	}
	ctx := e.Request().Context()
	w, rc := e.Response(), http.NewResponseController(e.Response())
	// Nothing more is read; the deadline of bodies would end the call.
	_ = rc.SetReadDeadline(time.Time{})
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)

	q.Limit = streamPage
	send := func(b []byte) error {
		_ = rc.SetWriteDeadline(time.Now().Add(streamPatience))
		if _, err := w.Write(b); err != nil {
			return err
		}
		return rc.Flush()
	}
	token := func(p eventstore.Position) string {
		return fmt.Sprintf("%s.%d.%d", s.deps.Store.LogID(), s.deps.Store.Epoch(), p)
	}
	if send([]byte("retry: 2000\n: "+c.id+"\n\n")) != nil {
		return nil // the reader is gone
	}
	silent := time.Now()
	for ctx.Err() == nil {
		select {
		case <-s.deps.Stopping:
			return nil
		default:
		}
		if !s.stillGood(ctx, c) {
			return nil
		}
		page, err := s.deps.Store.ReadPage(ctx, q)
		if err != nil {
			return s.broken(ctx, c, err)
		}
		var out []byte
		for _, ev := range page.Events {
			out = fmt.Appendf(out, "id: %s\nevent: %s\ndata: ", token(ev.Position), ev.Type)
			if out, err = consumers.AppendDocument(out, ev); err != nil {
				return s.broken(ctx, c, err)
			}
			out = append(out, "\n\n"...)
		}
		q.After = page.Through
		switch {
		case len(out) > 0:
			silent = time.Now()
		case time.Since(silent) >= streamBeat:
			// An id without data dispatches nothing, and is where to go on.
			out = fmt.Appendf(out, ": still here\nid: %s\n\n", token(q.After))
			silent = time.Now()
		}
		if len(out) > 0 && send(out) != nil {
			return nil // the reader is gone
		}
		if len(page.Events) == q.Limit {
			continue
		}
		waiting, end := context.WithTimeout(ctx, streamCheck)
		_ = s.deps.Store.Wait(waiting, q.After) // whatever ended it, the loop finds out
		end()
	}
	return nil
}

// stillGood reports whether the call that was let in would be let in again.
func (s *server) stillGood(ctx context.Context, c *call) bool {
	t, err := s.deps.Tokens.Authenticate(ctx, c.header.Get("Authorization"))
	return err == nil && t.ID == c.token.ID && t.Role.May(access.UserRead) && s.mayEnter(ctx, t, c.org) == nil
}

// broken ends a stream whose answer has begun: what happened is in the log.
func (s *server) broken(ctx context.Context, c *call, err error) error {
	if ctx.Err() == nil || !errors.Is(err, context.Canceled) {
		_ = s.failure(ctx, c, err)
	}
	return nil
}
