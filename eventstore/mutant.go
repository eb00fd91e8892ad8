//go:build mutant

package eventstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// This file makes wrong logs, for the harness that has to catch them. It is no
// part of any normal build.

// Mutate replaces the text of a committer's statement, named as its file is
// without the ending. It must be called before the first Store is opened.
func Mutate(statement, sql string) {
	text := map[string]*string{
		"lock_streams": &sqlLockStreams, "insert_claims": &sqlInsertClaims, "take_claims": &sqlTakeClaims,
		"find_claims": &sqlFindClaims, "find_repeats": &sqlFindRepeats, "insert_streams": &sqlInsertStreams,
		"insert_events": &sqlInsertEvents, "insert_repeats": &sqlInsertRepeats, "lock_log": &sqlLockLog,
		"bind_batch": &sqlBindBatch,
	}[statement]
	if text == nil {
		panic("eventstore: no statement " + statement + " to mutate")
	}
	*text = sql
}

// Wrong is a faulty way to drive a flush.
type Wrong struct {
	// Before is SQL that runs ahead of each flush, outside its transaction.
	Before string
	// LostIsDone answers a flush whose connection broke during the commit as if
	// it had gone through.
	LostIsDone bool

	mu   sync.Mutex // guards lane
	lane *lane
}

// AppendMany is the store's, with the fault.
func (w *Wrong) AppendMany(ctx context.Context, s *Store, as []Append) []Outcome {
	out := make([]Outcome, len(as))
	todo := make([]int, len(as))
	for i := range as {
		todo[i] = i
	}
	for attempt := 0; len(todo) > 0 && attempt < 10; attempt++ {
		ps := make([]*pending, len(as))
		s.seal(ctx, as, todo, ps, out)
		var batch []*pending
		for _, i := range todo {
			if ps[i] != nil {
				batch = append(batch, ps[i])
			}
		}
		w.commit(ctx, s, batch)
		again := todo[:0]
		for _, i := range todo {
			if ps[i] == nil {
				continue
			}
			if out[i] = <-ps[i].done; errors.Is(out[i].Err, errStale) {
				s.keys.forget(as[i].Stream)
				again = append(again, i)
			}
		}
		todo = again
	}
	return out
}

func (w *Wrong) commit(ctx context.Context, s *Store, batch []*pending) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lane == nil {
		w.lane = &lane{store: s}
	}
	l := w.lane
	var err error
	f := &flush{lane: l, careful: true}
	for range 20 {
		if ctx.Err() != nil {
			fail(batch, ctx.Err())
			return
		}
		if err = l.ready(ctx); err != nil {
			continue
		}
		if w.Before != "" {
			if _, err = l.conn.Exec(ctx, w.Before); err != nil {
				l.disconnect()
				continue
			}
		}
		f.reset(batch)
		if err = f.run(ctx); err == nil || w.LostIsDone && f.committing && l.conn.IsClosed() {
			f.answer()
			return
		}
		if f.committing && l.conn.IsClosed() {
			break // it may be there or not
		}
		l.disconnect()
	}
	fail(batch, fmt.Errorf("eventstore: not known: %w", err))
}
