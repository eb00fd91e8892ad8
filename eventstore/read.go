package eventstore

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Query says which events to read, in order of position.
type Query struct {
	// After is the position to begin behind.
	After Position
	// UpTo is the last position to read; 0 sets no bound.
	UpTo Position
	// Limit bounds the number of events; default 1000.
	Limit int
	// Types, when not empty, selects event types.
	Types []string
	// NotTypes, when not empty, leaves event types out. Types that nobody has
	// thought of yet are then selected.
	NotTypes []string
	// Org, when not empty, selects one organisation's events.
	Org string
	// FirstSlice and LastSlice, inclusive, select slices; both 0 selects all.
	FirstSlice, LastSlice int16
}

func (q Query) filtered() bool {
	return len(q.Types) > 0 || len(q.NotTypes) > 0 || q.Org != "" || q.FirstSlice != 0 || q.LastSlice != 0
}

// Page is a stretch of the log.
type Page struct {
	Events []Event
	// Through is the position up to which the query has been answered: every
	// event up to it that the query selects is in Events, or came before.
	// With a filter it may be far beyond the last event.
	Through Position
}

// Read returns the events that q selects, sealed. See ReadPage.
func (s *Store) Read(ctx context.Context, q Query) ([]Event, error) {
	page, err := s.ReadPage(ctx, q)
	return page.Events, err
}

// How many positions a filtered read looks at in one query: few at first, since
// all that is selected there is fetched, and more while little of it is.
const (
	firstWindow = 2_000
	lastWindow  = 20_000
)

// ReadPage returns the next events that q selects, up to q.Limit of them, and
// how far it looked. What was committed before the call is seen. Without a
// filter the positions are dense: After+1, After+2 and so on to Through; where
// the log has a hole it fails with ErrHole. Payloads stay sealed until Open.
func (s *Store) ReadPage(ctx context.Context, q Query) (Page, error) {
	if q.Limit <= 0 {
		q.Limit = 1000
	}
	filtered := q.filtered()
	if q.FirstSlice == 0 && q.LastSlice == 0 {
		q.LastSlice = Slices - 1
	}
	end, err := s.visible(ctx, q.After+Position(q.Limit))
	if err != nil {
		return Page{}, err
	}
	if q.UpTo > 0 {
		end = min(end, q.UpTo)
	}
	page := Page{Through: q.After}
	window := Position(q.Limit)
	if filtered {
		window = max(window, firstWindow)
	}
	for page.Through < end && len(page.Events) < q.Limit {
		through := min(page.Through+window, end)
		var got []Event
		var reached Position
		if filtered {
			got, reached, err = s.readFiltered(ctx, q, page.Through, through)
		} else {
			got, reached, err = s.readDense(ctx, page.Through, through)
		}
		if err != nil {
			return Page{}, err
		}
		// A head that was once seen may be out of sight again: a standby that
		// was restarted shows an older state for a while. Then what is known is
		// wrong, and the page ends where the answer does.
		short := reached < through
		if filtered && Position(len(got)) < window/4 {
			window = max(window, min(4*window, lastWindow))
		}
		if room := q.Limit - len(page.Events); len(got) > room {
			got = got[:room]
			reached = got[room-1].Position
		}
		if page.Events == nil {
			page.Events = got
		} else {
			page.Events = append(page.Events, got...)
		}
		page.Through = max(page.Through, reached)
		if short {
			break
		}
	}
	return page, nil
}

// readDense reads all events after a position through another, or as many of
// them as are visible: their number tells how far the answer reaches. Too few
// although the log reaches further are a hole.
func (s *Store) readDense(ctx context.Context, after, through Position) ([]Event, Position, error) {
	for missed := false; ; missed = true {
		rows, err := s.pool.Query(ctx, sqlRead, int64(after), int64(through), nil, nil, int16(0), int16(Slices-1), nil)
		if err != nil {
			return nil, 0, fmt.Errorf("eventstore: reading: %w", err)
		}
		got, err := s.collect(rows, nil, int(through-after))
		if err != nil {
			return nil, 0, err
		}
		reached := after + Position(len(got))
		if missed && reached < through || len(got) > 0 && got[len(got)-1].Position != reached {
			return nil, 0, fmt.Errorf("%w: after position %d", ErrHole, holeAfter(after, got))
		}
		if reached == through {
			return got, reached, nil
		}
		head, err := s.lookUpHead(ctx)
		if err != nil {
			return nil, 0, err
		}
		if head < through {
			s.watch.recede(head)
			return got, reached, nil
		}
	}
}

func holeAfter(after Position, events []Event) Position {
	for i := range events {
		if events[i].Position != after+1 {
			break
		}
		after++
	}
	return after
}

// readFiltered reads the events that q selects in a window of positions, or in
// as much of it as is visible. The events do not tell how much that is; the
// head does, which the same connection has seen just before.
func (s *Store) readFiltered(ctx context.Context, q Query, after, through Position) (got []Event, reached Position, err error) {
	var types, others, org any
	if len(q.Types) > 0 {
		types = q.Types
	}
	if len(q.NotTypes) > 0 {
		others = q.NotTypes
	}
	if q.Org != "" {
		org = q.Org
	}
	b := &pgx.Batch{}
	b.Queue(sqlHead)
	b.Queue(sqlRead, int64(after), int64(through), types, org, q.FirstSlice, q.LastSlice, others)
	answers := s.pool.SendBatch(ctx, b)
	defer func() {
		if closing := answers.Close(); closing != nil && err == nil {
			err = fmt.Errorf("eventstore: reading: %w", closing)
		}
	}()
	var head int64
	if err := answers.QueryRow().Scan(&head); err != nil {
		return nil, 0, fmt.Errorf("eventstore: reading the head: %w", err)
	}
	rows, err := answers.Query()
	if err != nil {
		return nil, 0, fmt.Errorf("eventstore: reading: %w", err)
	}
	got, err = s.collect(rows, nil, int(min(through-after, Position(q.Limit))))
	if err != nil {
		return nil, 0, err
	}
	reached = min(through, Position(head))
	if reached < through {
		s.watch.recede(reached)
	}
	// The rows may be younger than the head, but a page ends at one place.
	for len(got) > 0 && got[len(got)-1].Position > reached {
		got = got[:len(got)-1]
	}
	return got, reached, nil
}

// visible returns a position up to which the log is known to reach: one that is
// at least enough, or the log's last.
func (s *Store) visible(ctx context.Context, enough Position) (Position, error) {
	if known := s.watch.head(); known >= enough {
		return known, nil
	}
	return s.lookUpHead(ctx)
}

// ReadStream returns one stream's events after a sequence, in order, sealed.
func (s *Store) ReadStream(ctx context.Context, stream string, after int64) ([]Event, error) {
	rows, err := s.pool.Query(ctx, sqlReadStream, SliceOf(stream), stream, after)
	if err != nil {
		return nil, fmt.Errorf("eventstore: reading a stream: %w", err)
	}
	return s.collect(rows, nil, 0)
}

// ReadSlices reads all streams of the slices from first to last, inclusive, up
// to a fixed position, in order of slice, stream and sequence. Sealed parts come
// with events of the types in sealed only; nil is for all. It calls each with
// runs of whole streams: some thousand events, sealed, which belong to each
// until it returns. It holds one connection and constant memory.
func (s *Store) ReadSlices(ctx context.Context, first, last int16, upTo Position, sealed []string, each func([]Event) error) error {
	if upTo == 0 {
		upTo = math.MaxInt64
	}
	rows, err := s.pool.Query(ctx, sqlReadSlices, first, last, int64(upTo), sealed)
	if err != nil {
		return fmt.Errorf("eventstore: reading slices: %w", err)
	}
	_, err = s.collect(rows, each, runSize)
	return err
}

// Head returns the last committed position and the present epoch.
func (s *Store) Head(ctx context.Context) (Checkpoint, error) {
	p, err := s.lookUpHead(ctx)
	return Checkpoint{Epoch: s.Epoch(), Position: p}, err
}

func (s *Store) lookUpHead(ctx context.Context) (Position, error) {
	var p int64
	if err := s.pool.QueryRow(ctx, sqlHead).Scan(&p); err != nil {
		return 0, fmt.Errorf("eventstore: reading the head: %w", err)
	}
	s.watch.saw(Position(p))
	return Position(p), nil
}

// Sequence returns the last sequence of a stream; 0 when it has no event.
func (s *Store) Sequence(ctx context.Context, stream string) (int64, error) {
	var n int64
	err := s.pool.QueryRow(ctx, `SELECT coalesce((SELECT sequence FROM streams WHERE stream = $1), 0)`, stream).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("eventstore: reading a stream's head: %w", err)
	}
	return n, nil
}

// Owner returns the stream that owns a claim; "" when nobody does.
func (s *Store) Owner(ctx context.Context, c Claim) (string, error) {
	hash := s.cfg.Keys.ClaimHash(c)
	var stream string
	err := s.pool.QueryRow(ctx, `SELECT coalesce((SELECT stream FROM claims WHERE hash = $1), '')`, hash[:]).Scan(&stream)
	if err != nil {
		return "", fmt.Errorf("eventstore: reading a claim: %w", err)
	}
	return stream, nil
}

// StreamHead is where a stream stands.
type StreamHead struct {
	Stream, Org string
	// Sequence is that of the stream's last event.
	Sequence int64
}

// Owners returns, for each of the claims and in their order, the stream that
// owns it; a zero StreamHead when nobody does. It is one query.
func (s *Store) Owners(ctx context.Context, claims []Claim) ([]StreamHead, error) {
	owners := make([]StreamHead, len(claims))
	rows, err := s.pool.Query(ctx, sqlOwners, pgtype.FlatArray[[]byte](claimKeys(s, claims)))
	if err != nil {
		return nil, fmt.Errorf("eventstore: reading claims: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var (
			i int64
			h StreamHead
		)
		if err := rows.Scan(&i, &h.Stream, &h.Org, &h.Sequence); err != nil {
			return nil, fmt.Errorf("eventstore: reading claims: %w", err)
		}
		owners[i-1] = h
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("eventstore: reading claims: %w", err)
	}
	return owners, nil
}

func claimKeys(s *Store, claims []Claim) [][]byte {
	keys := make([][]byte, len(claims))
	for i, hash := range s.hashClaims(claims) {
		keys[i] = hash[:]
	}
	return keys
}

// Heads returns where streams stand, by stream; those that do not exist are
// missing. It is one query.
func (s *Store) Heads(ctx context.Context, streams []string) (map[string]StreamHead, error) {
	heads := make(map[string]StreamHead, len(streams))
	rows, err := s.pool.Query(ctx, `SELECT stream, org, sequence FROM streams WHERE stream = ANY ($1::text[])`, streams)
	if err != nil {
		return nil, fmt.Errorf("eventstore: reading streams' heads: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var h StreamHead
		if err := rows.Scan(&h.Stream, &h.Org, &h.Sequence); err != nil {
			return nil, fmt.Errorf("eventstore: reading streams' heads: %w", err)
		}
		heads[h.Stream] = h
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("eventstore: reading streams' heads: %w", err)
	}
	return heads, nil
}

// Repeat returns the result of an earlier append with the same idempotency
// key, so that a caller can spare the work of deciding again; ok is false when
// there is none. It fails with ErrIdempotencyMismatch when the key was used
// for another request.
func (s *Store) Repeat(ctx context.Context, i Idempotency) (r Result, ok bool, err error) {
	key, request := s.blindKey(i.Key), s.blindRequest(i.Request)
	var (
		found    []byte
		position int64
	)
	err = s.pool.QueryRow(ctx, sqlFindRepeats, pgtype.FlatArray[[]byte]{key[:]}).
		Scan(nil, &found, &r.Stream, &r.First, &r.Last, &position, &r.At)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Result{}, false, nil
	case err != nil:
		return Result{}, false, fmt.Errorf("eventstore: looking up an idempotency key: %w", err)
	case string(found) != string(request[:]):
		return Result{}, false, ErrIdempotencyMismatch
	}
	r.At = r.At.UTC()
	r.Position, r.Repeated = Position(position), true
	r.Epoch = epochOf(*s.epochs.Load(), r.Position)
	return r, true, nil
}

// runSize is about how many events collect hands on at a time.
const runSize = 4096

// collect decodes the rows of one of the reading statements, from the wire's
// binary form straight into events. Without each it returns them all; with
// each it hands them on in runs that end between two streams. It makes room for
// expect events beforehand.
func (s *Store) collect(rows pgx.Rows, each func([]Event) error, expect int) ([]Event, error) {
	defer rows.Close()
	var (
		events  = make([]Event, 0, expect)
		epochs  = *s.epochs.Load()
		strings = interner{}
	)
	for rows.Next() {
		v := rows.RawValues()
		if each != nil && len(events) >= runSize && string(v[1]) != events[len(events)-1].Stream {
			if err := each(events); err != nil {
				return nil, err
			}
			events = events[:0]
		}
		var stream string
		if n := len(events); n > 0 && events[n-1].Stream == string(v[1]) {
			stream = events[n-1].Stream
		} else {
			stream = string(v[1])
		}
		e := Event{
			Position: Position(readInt8(v[0])),
			Stream:   stream,
			Sequence: readInt8(v[2]),
			Slice:    readInt2(v[3]),
			Type:     strings.of(v[5]),
			Schema:   readInt2(v[6]),
			Org:      strings.of(v[7]),
			Actor:    strings.of(v[8]),
			At:       fromMicroseconds(readInt8(v[9])),
		}
		copy(e.ID[:], v[4])
		// One allocation for both payloads; the rows' own buffer is reused. An
		// empty payload is not the same as none.
		if v[10] != nil || v[11] != nil {
			n := len(v[10])
			buf := append(append(make([]byte, 0, n+len(v[11])), v[10]...), v[11]...)
			if v[10] != nil {
				e.Data = buf[:n:n]
			}
			if v[11] != nil {
				e.Sealed = buf[n:]
			}
		}
		e.Epoch = epochOf(epochs, e.Position)
		events = append(events, e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("eventstore: reading: %w", err)
	}
	switch {
	case each != nil && len(events) > 0:
		return nil, each(events)
	case len(events) == 0:
		return nil, nil
	}
	return events, nil
}

// interner gives one string for equal byte strings; the few types,
// organisations and actors of a read share theirs.
type interner map[string]string

func (in interner) of(b []byte) string {
	if s, ok := in[string(b)]; ok {
		return s
	}
	if len(in) > 4096 {
		clear(in)
	}
	s := string(b)
	in[s] = s
	return s
}
