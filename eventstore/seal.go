package eventstore

import (
	"container/list"
	"context"
	"crypto/cipher"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
)

// idSource makes event ids: ULIDs that rise within a process.
type idSource struct {
	rand io.Reader

	mu      sync.Mutex // guards entropy
	entropy *ulid.MonotonicEntropy
}

func newIDSource(rand io.Reader) *idSource {
	return &idSource{rand: rand, entropy: ulid.Monotonic(rand, 0)}
}

// fill sets ids to fresh ones with at as their time.
func (g *idSource) fill(ids []ulid.ULID, at time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range ids {
		if err := ids[i].SetTime(ulid.Timestamp(at)); err != nil {
			return err
		}
		if err := g.entropy.MonotonicRead(ids[i].Time(), ids[i][6:]); err != nil {
			return err
		}
	}
	return nil
}

// associated is the data that a sealed payload is bound to: its stream and its
// event. The id has a fixed length, so the two cannot run into each other.
func associated(buf []byte, stream string, id ulid.ULID) []byte {
	return append(append(buf[:0], stream...), id[:]...)
}

// keyCache holds the data keys of the streams used last, ready for use. A nil
// entry remembers an erased subject.
type keyCache struct {
	limit int

	mu    sync.Mutex // guards what follows
	byID  map[string]*list.Element
	order *list.List // of *cachedKey, the one used last in front
}

type cachedKey struct {
	stream string
	aead   cipher.AEAD
}

func cached(e *list.Element) *cachedKey {
	return e.Value.(*cachedKey) //nolint:errcheck // the list holds nothing else
}

func newKeyCache(limit int) *keyCache {
	return &keyCache{limit: limit, byID: make(map[string]*list.Element), order: list.New()}
}

func (c *keyCache) get(stream string) (aead cipher.AEAD, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byID[stream]
	if e == nil {
		return nil, false
	}
	c.order.MoveToFront(e)
	return cached(e).aead, true
}

func (c *keyCache) put(stream string, aead cipher.AEAD) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byID[stream]; e != nil {
		cached(e).aead = aead
		c.order.MoveToFront(e)
		return
	}
	c.byID[stream] = c.order.PushFront(&cachedKey{stream, aead})
	for c.order.Len() > c.limit {
		last := c.order.Back()
		delete(c.byID, cached(last).stream)
		c.order.Remove(last)
	}
}

func (c *keyCache) forget(stream string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byID[stream]; e != nil {
		delete(c.byID, stream)
		c.order.Remove(e)
	}
}

// clear forgets everything, for when an erasure may have gone unheard.
func (c *keyCache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.byID)
	c.order.Init()
}

// dataKeys returns the data keys of streams that exist; a nil key means that
// the subject is erased, a missing one that there is no such stream. Those not
// in the cache are fetched with one query.
func (s *Store) dataKeys(ctx context.Context, streams map[string]cipher.AEAD) error {
	var missing []string
	for stream := range streams {
		if aead, ok := s.keys.get(stream); ok {
			streams[stream] = aead
		} else {
			missing = append(missing, stream)
			delete(streams, stream)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	rows, err := s.pool.Query(ctx, sqlDataKeys, missing)
	if err != nil {
		return fmt.Errorf("eventstore: reading data keys: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var (
			stream  string
			kek     *string
			wrapped []byte
		)
		if err := rows.Scan(&stream, &kek, &wrapped); err != nil {
			return fmt.Errorf("eventstore: reading data keys: %w", err)
		}
		aead, err := s.unwrap(stream, kek, wrapped)
		if err != nil {
			return err
		}
		streams[stream] = aead
		s.keys.put(stream, aead)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("eventstore: reading data keys: %w", err)
	}
	return nil
}

func (s *Store) unwrap(stream string, kek *string, wrapped []byte) (cipher.AEAD, error) {
	if kek == nil {
		return nil, nil
	}
	key, err := s.cfg.Keys.Unwrap(stream, *kek, wrapped)
	if err != nil {
		return nil, fmt.Errorf("eventstore: unwrapping a data key: %w", err)
	}
	return newAEAD(key)
}

// Open decrypts the sealed payloads of events in place, into Personal. Events
// of erased subjects get Erased instead. The keys that are not at hand are
// fetched with one query for all events.
func (s *Store) Open(ctx context.Context, events []Event) error {
	streams := make(map[string]cipher.AEAD)
	for i := range events {
		if events[i].Sealed != nil {
			streams[events[i].Stream] = nil
		}
	}
	if len(streams) == 0 {
		return nil
	}
	if err := s.dataKeys(ctx, streams); err != nil {
		return err
	}
	var ad []byte
	for i := range events {
		e := &events[i]
		if e.Sealed == nil {
			continue
		}
		aead, ok := streams[e.Stream]
		if !ok {
			return fmt.Errorf("eventstore: position %d: its stream has no head", e.Position)
		}
		if aead == nil {
			e.Erased = true
			continue
		}
		var err error
		ad = associated(ad, e.Stream, e.ID)
		if e.Personal, err = open(aead, e.Sealed, ad); err != nil {
			return fmt.Errorf("position %d: %w", e.Position, err)
		}
	}
	return nil
}
