package eventstore

import (
	"context"
	"crypto/cipher"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/oklog/ulid/v2"
)

// Outcome is what became of one append of AppendMany.
type Outcome struct {
	Result Result
	Err    error
}

// pending is an append on its way. Its caller owns it until it is queued, then
// the lane that takes it; the lane's last act is to send to done.
type pending struct {
	ctx context.Context
	a   *Append

	slice  int16
	at     time.Time
	ids    []ulid.ULID
	sealed [][]byte

	// fresh is the data key made for a stream that is taken to be new, with
	// its wrapped form; nil when the stream's own key was used.
	fresh   cipher.AEAD
	kek     string
	wrapped []byte

	take, release []claimHash
	key, request  claimHash // set when a.Idempotency is

	done chan Outcome // capacity 1
}

type claimHash = [32]byte

// errStale says that the stream did not turn out as the append was sealed
// for: it exists although a fresh key was made, or the other way round. The
// caller seals again and queues again.
var errStale = errors.New("eventstore: sealed with a key that is not the stream's")

// MaxEvents is the largest number of events in one append.
const MaxEvents = 1000

// Append commits a's events, whole or not at all, and returns where they went.
//
// It fails with *ConflictError, *SequenceError, ErrIdempotencyMismatch,
// ErrErased or ErrInvalidAppend for reasons of its own; with ErrUnavailable
// when it never reached the database; and with ctx's error when ctx ends while
// the append is being committed, in which case only a repetition with the same
// idempotency key, or a look at the stream, tells whether it was.
func (s *Store) Append(ctx context.Context, a Append) (Result, error) {
	out := s.AppendMany(ctx, []Append{a})[0]
	return out.Result, out.Err
}

// AppendMany commits many appends, each whole or not at all and each judged on
// its own, and returns their outcomes in the same order. They share
// transactions with each other and with whoever else is appending. Appends to
// the same stream may be committed in any order, unless their expected sequences
// say otherwise.
func (s *Store) AppendMany(ctx context.Context, as []Append) []Outcome {
	out := make([]Outcome, len(as))
	ps := make([]*pending, len(as))
	todo := make([]int, len(as))
	for i := range as {
		todo[i] = i
	}
	for attempt := 0; len(todo) > 0; attempt++ {
		s.seal(ctx, as, todo, ps, out)
		for _, i := range todo {
			if ps[i] != nil {
				if err := s.committer.enqueue(ctx, ps[i]); err != nil {
					out[i].Err, ps[i] = err, nil
				}
			}
		}
		again := todo[:0]
		for _, i := range todo {
			p := ps[i]
			if p == nil {
				continue
			}
			ps[i] = nil
			select {
			case out[i] = <-p.done:
			case <-ctx.Done():
				select {
				case out[i] = <-p.done:
				default:
					out[i] = Outcome{Err: s.committer.abandon(p, ctx.Err())}
				}
			}
			if errors.Is(out[i].Err, errStale) && attempt < 10 {
				s.keys.forget(as[i].Stream)
				out[i] = Outcome{}
				again = append(again, i)
			}
		}
		todo = again
	}
	return out
}

// seal prepares the appends named by todo: checks them, gives their events ids
// and seals their payloads. It sets ps for those that are ready and out for
// those that have failed.
func (s *Store) seal(ctx context.Context, as []Append, todo []int, ps []*pending, out []Outcome) {
	// Existing streams need their own keys; one query fetches them all.
	var keys map[string]cipher.AEAD
	for _, i := range todo {
		if as[i].Expected != NoStream {
			if keys == nil {
				keys = make(map[string]cipher.AEAD)
			}
			keys[as[i].Stream] = nil
		}
	}
	var keyErr error
	if keys != nil {
		keyErr = s.dataKeys(ctx, keys)
	}
	for _, i := range todo {
		a := &as[i]
		err := a.check()
		if err == nil && a.Expected != NoStream {
			err = keyErr
		}
		if err == nil {
			aead, exists := keys[a.Stream]
			ps[i], err = s.sealOne(ctx, a, aead, exists && a.Expected != NoStream)
		}
		if err != nil {
			out[i].Err = err
		}
	}
}

func (s *Store) sealOne(ctx context.Context, a *Append, aead cipher.AEAD, exists bool) (*pending, error) {
	p := &pending{
		ctx:    ctx,
		a:      a,
		slice:  SliceOf(a.Stream),
		at:     a.At.UTC().Truncate(time.Microsecond),
		ids:    make([]ulid.ULID, len(a.Events)),
		sealed: make([][]byte, len(a.Events)),
		done:   make(chan Outcome, 1),
	}
	if err := s.ids.fill(p.ids, p.at); err != nil {
		return nil, fmt.Errorf("%w: its time: %w", ErrInvalidAppend, err)
	}
	if !exists {
		var key [32]byte
		if _, err := s.cfg.Rand.Read(key[:]); err != nil {
			return nil, fmt.Errorf("eventstore: making a data key: %w", err)
		}
		var err error
		if aead, err = newAEAD(key[:]); err != nil {
			return nil, err
		}
		p.fresh = aead
		p.kek, p.wrapped = s.cfg.Keys.Wrap(a.Stream, key[:])
	}
	var ad []byte
	for i := range a.Events {
		if a.Events[i].Personal == nil {
			continue
		}
		if aead == nil {
			// The subject is erased. That is for the judge to say: a repetition of
			// an earlier append still gets that one's result.
			p.sealed[i] = []byte{}
			continue
		}
		ad = associated(ad, a.Stream, p.ids[i])
		p.sealed[i] = seal(aead, a.Events[i].Personal, ad)
	}
	p.take, p.release = s.hashClaims(a.Take), s.hashClaims(a.Release)
	if a.Idempotency != nil {
		p.key, p.request = s.blindKey(a.Idempotency.Key), s.blindRequest(a.Idempotency.Request)
	}
	return p, nil
}

func (s *Store) hashClaims(claims []Claim) []claimHash {
	if len(claims) == 0 {
		return nil
	}
	hashes := make([]claimHash, len(claims))
	for i, c := range claims {
		hashes[i] = s.cfg.Keys.ClaimHash(c)
	}
	return hashes
}

func (s *Store) blindKey(key string) claimHash { return s.cfg.Keys.blind("idempotency", key) }
func (s *Store) blindRequest(request []byte) claimHash {
	return s.cfg.Keys.blind("request", string(request))
}

// check finds what PostgreSQL or the log's own rules would refuse, before it
// can get in other appends' way.
func (a *Append) check() error {
	switch {
	case len(a.Events) == 0 || len(a.Events) > MaxEvents:
		return fmt.Errorf("%w: %d events", ErrInvalidAppend, len(a.Events))
	case a.Expected < Any:
		return fmt.Errorf("%w: expected sequence %d", ErrInvalidAppend, a.Expected)
	case a.Stream == "" || len(a.Stream) > 1000 || !storable(a.Stream):
		return fmt.Errorf("%w: stream id", ErrInvalidAppend)
	case !storable(a.Org) || !storable(a.Actor):
		return fmt.Errorf("%w: organisation or actor", ErrInvalidAppend)
	case a.At.Year() < 1970 || a.At.Year() > 9999:
		return fmt.Errorf("%w: time", ErrInvalidAppend)
	}
	for i := range a.Events {
		e := &a.Events[i]
		if e.Type == "" || !storable(e.Type) || e.Schema < 1 {
			return fmt.Errorf("%w: event type or schema", ErrInvalidAppend)
		}
		if e.Personal != nil && a.Erase {
			return fmt.Errorf("%w: a sealed payload in the append that erases", ErrInvalidAppend)
		}
		if len(e.Data)+len(e.Personal) > math.MaxInt32/4 {
			return fmt.Errorf("%w: payload size", ErrInvalidAppend)
		}
	}
	return nil
}

// storable reports whether PostgreSQL's text can hold s.
func storable(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// committer is the group committer: appends wait in memory, and each lane
// commits as many as it finds waiting in one transaction. Nothing waits on a
// timer: a lane that is idle takes a lone append at once.
type committer struct {
	store *Store
	room  chan struct{} // one token for each append that is queued: the bound

	mu      sync.Mutex // guards what follows
	filled  *sync.Cond // queue grew, or closing was set
	queue   []*pending
	closing bool

	lanes sync.WaitGroup
}

func newCommitter(s *Store) *committer {
	c := &committer{store: s, room: make(chan struct{}, s.cfg.Queue)}
	c.filled = sync.NewCond(&c.mu)
	return c
}

func (c *committer) start(ctx context.Context) {
	for range c.store.cfg.Lanes {
		c.lanes.Add(1)
		go func() {
			defer c.lanes.Done()
			(&lane{store: c.store}).run(ctx, c)
		}()
	}
}

// enqueue hands p to the lanes. When the queue is full it waits for room, as
// long as p's context allows.
func (c *committer) enqueue(ctx context.Context, p *pending) error {
	if c.store.standby {
		return fmt.Errorf("%w: the database is a standby", ErrUnavailable)
	}
	select {
	case c.room <- struct{}{}:
	default:
		select {
		case c.room <- struct{}{}:
		case <-ctx.Done():
			return fmt.Errorf("%w: the queue stayed full: %w", ErrUnavailable, ctx.Err())
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		<-c.room
		return fmt.Errorf("%w: closing", ErrUnavailable)
	}
	c.queue = append(c.queue, p)
	c.filled.Signal()
	return nil
}

// abandon takes p out of the queue when its context has ended. An append that
// no lane has taken yet is known not to have happened; of any other the caller
// learns only that its context has ended.
func (c *committer) abandon(p *pending, cause error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, q := range c.queue {
		if q == p {
			c.queue = append(c.queue[:i], c.queue[i+1:]...)
			<-c.room
			return fmt.Errorf("%w: not begun: %w", ErrUnavailable, cause)
		}
	}
	return cause
}

// yields is how often a lane lets others run before it takes what waits. The
// callers that a flush has just answered come back one after another; a lane
// that took the first of them at once would leave the rest to flushes of their
// own. It is no wait: where nobody else wants the processor it costs well under
// a microsecond, and it ends as soon as nothing more has come.
const yields = 4

// next waits for appends and takes as many as one flush holds. It returns nil
// when the committer is closing and nothing is left.
func (c *committer) next() []*pending {
	c.mu.Lock()
	defer c.mu.Unlock()
	for yielded := 0; ; {
		before := len(c.queue)
		switch {
		case before == 0 && c.closing:
			return nil
		case before == 0:
			c.filled.Wait()
			continue
		case yielded == yields:
			return c.take()
		}
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
		yielded++
		if n := len(c.queue); n > 0 && n == before {
			return c.take()
		}
	}
}

// take takes from the queue, which is not empty, what one flush holds. It is
// called with mu held.
func (c *committer) take() []*pending {
	n, events := 0, 0
	for n < len(c.queue) {
		events += len(c.queue[n].a.Events)
		if n > 0 && events > c.store.cfg.FlushEvents {
			break
		}
		n++
	}
	taken := make([]*pending, n)
	copy(taken, c.queue)
	rest := copy(c.queue, c.queue[n:])
	clear(c.queue[rest:])
	c.queue = c.queue[:rest]
	for range n {
		<-c.room
	}
	return taken
}

// drain stops accepting appends and waits until the lanes have finished what
// is queued, or until ctx ends; then it cuts the lanes off.
func (c *committer) drain(ctx context.Context) error {
	c.mu.Lock()
	c.closing = true
	c.filled.Broadcast()
	c.mu.Unlock()
	finished := make(chan struct{})
	go func() { c.lanes.Wait(); close(finished) }()
	select {
	case <-finished:
		return nil
	case <-ctx.Done():
		c.store.stop()
		<-finished
		return fmt.Errorf("eventstore: appends were cut off: %w", ctx.Err())
	}
}
