package eventstore

import (
	"hash/crc32"
	"time"

	"github.com/oklog/ulid/v2"
)

// Slices is the number of slices that streams are spread over: the unit of
// parallel, ordered work.
const Slices = 1024

// SliceOf returns the slice, 0 to Slices-1, that a stream belongs to: its
// CRC-32 (IEEE) modulo Slices. It is stored with each event and never changes.
func SliceOf(stream string) int16 {
	return int16(crc32.ChecksumIEEE([]byte(stream)) % Slices)
}

// SystemPrefix begins the id of every stream that is not a user's: no caller
// can choose a user id that begins with it.
const SystemPrefix = "$"

// Position is an event's place in the whole log: 1, 2, 3 … without a hole.
// Zero means "before the first event".
type Position int64

// Checkpoint says up to where somebody has handled the log, and in which of
// its histories.
type Checkpoint struct {
	// Epoch is the history that Position counts in. It changes when the
	// database's timeline or system identifier does (failover, restore).
	Epoch    int32
	Position Position
}

// Event is one fact, as it was committed.
type Event struct {
	Position Position
	Epoch    int32
	// Stream is the id of the aggregate that the event is about. For a user
	// it is the user's id.
	Stream string
	// Sequence is 1, 2, 3 … within Stream, in order of Position.
	Sequence int64
	Slice    int16
	ID       ulid.ULID
	// Type is the event's name in the field's words, past tense: "HumanAdded".
	Type string
	// Schema is the version of the payload's form, from 1.
	Schema int16
	// Org is the organisation that owns the stream.
	Org string
	// Actor is the id of who caused the event: a token's, a user's, or one
	// that begins with SystemPrefix.
	Actor string
	// At is when the event was decided, UTC, in microseconds. Nothing is
	// ordered by it.
	At time.Time
	// Data is the open part of the payload; it holds no personal data.
	Data []byte
	// Sealed is the encrypted part of the payload, as stored: nonce, then
	// AES-256-GCM ciphertext. Nil when the event has none.
	Sealed []byte
	// Personal is the plain text of Sealed after Store.Open.
	Personal []byte
	// Erased says, after Store.Open, that the subject's key is gone: Sealed
	// can never be read again.
	Erased bool
}

// NewEvent is a fact that a command decided, not yet committed.
type NewEvent struct {
	Type   string
	Schema int16
	// Data is the open part of the payload; nil for none.
	Data []byte
	// Personal is what gets sealed with the subject's own key; nil for none.
	Personal []byte
}

// Claim is a value that at most one stream may own, such as a login name.
// The database sees only a keyed hash of it.
type Claim struct {
	// Kind is what is claimed: "login_name", "idp_link".
	Kind string
	// Scope is within what the value is unique; "" is the whole service.
	Scope string
	// Value is the normalised value; two claims are the same exactly when
	// all three fields are equal.
	Value string
}

// Expected is the condition that an append puts on its stream's sequence.
type Expected int64

const (
	// Any puts no condition on the stream.
	Any Expected = -1
	// NoStream requires that the stream has no event yet.
	NoStream Expected = 0
)

// Append is one request: some events for one stream, committed whole or not
// at all.
type Append struct {
	Stream string
	Org    string
	Actor  string
	// Expected is NoStream, Any, or the exact last sequence of the stream.
	Expected Expected
	// At is the time to store with the events; it is cut to microseconds.
	At     time.Time
	Events []NewEvent
	// Take are claims that the stream must own afterwards; Release are those
	// that it gives up.
	Take, Release []Claim
	// Erase destroys the subject's data key in the same transaction: nothing
	// sealed for the stream, before or after, can be read any more. Events of
	// such an append carry no Personal payload.
	Erase bool
	// Idempotency, when set, makes a repetition of this append return the
	// first one's Result.
	Idempotency *Idempotency
}

// Idempotency identifies a request that may be repeated.
type Idempotency struct {
	// Key is whatever the caller sent, qualified by who sent it. Only a keyed
	// hash of it is stored.
	Key string
	// Request is the whole request, or a digest of it: the same key with
	// another request is refused. Only a keyed hash of it is stored.
	Request []byte
}

// Result says where an append's events went.
type Result struct {
	// Stream is the stream that holds the events: the append's own, or that
	// of the first append with the same idempotency key.
	Stream string
	// First and Last are the sequences of the first and the last event.
	First, Last int64
	// Position and Epoch are those of the last event.
	Position Position
	Epoch    int32
	// At is the time stored with the events.
	At time.Time
	// Repeated says that nothing was appended: the idempotency key had been
	// used for the same request before.
	Repeated bool
}
