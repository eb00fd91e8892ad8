package eventstore

import (
	"errors"
	"fmt"
)

var (
	// ErrUnavailable says that an append never reached the database: the queue
	// stayed full until the caller's deadline, or the store is closing.
	// Nothing was appended.
	ErrUnavailable = errors.New("eventstore: unavailable")

	// ErrIdempotencyMismatch says that the idempotency key was used before,
	// for another request. Nothing was appended.
	ErrIdempotencyMismatch = errors.New("eventstore: idempotency key was used for another request")

	// ErrErased says that the stream's subject has been erased: nothing can be
	// sealed for it any more. Nothing was appended.
	ErrErased = errors.New("eventstore: the subject is erased")

	// ErrInvalidAppend says that an append is malformed in itself. Nothing was
	// appended. It wraps the reason.
	ErrInvalidAppend = errors.New("eventstore: invalid append")

	// ErrHole says that positions are missing in the log that a reader cannot
	// go past without skipping something. muster verify tells more.
	ErrHole = errors.New("eventstore: the log has a hole")
)

// ConflictError says that another stream owns a claim that an append wanted.
// Nothing was appended.
type ConflictError struct {
	// Claim is the append's own claim that lost.
	Claim Claim
}

// Error names the claim's kind only: its value may be personal.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("eventstore: claim of kind %s is taken", e.Claim.Kind)
}

// SequenceError says that an append's expectation of its stream did not hold.
// Nothing was appended.
type SequenceError struct {
	Stream   string
	Expected Expected
	// Actual is the stream's last sequence; 0 means that there is none.
	Actual int64
}

// Error tells both numbers.
func (e *SequenceError) Error() string {
	return fmt.Sprintf("eventstore: stream has sequence %d, expected %d", e.Actual, int64(e.Expected))
}

// ForkError says that a checkpoint belongs to a history that has ended, and
// that its owner has handled positions which the present history does not
// have, or has with other events.
type ForkError struct {
	Checkpoint Checkpoint
	// Fork is the first position at which the histories may differ; positions
	// from Fork to Checkpoint.Position were handled and are gone.
	Fork Position
	// Current is the present epoch.
	Current int32
}

// Error tells which positions are in doubt and what to do.
func (e *ForkError) Error() string {
	return fmt.Sprintf("eventstore: checkpoint %d of epoch %d is past the fork: positions %d to %d were handled and epoch %d does not have them; rewind to position %d",
		e.Checkpoint.Position, e.Checkpoint.Epoch, e.Fork, e.Checkpoint.Position, e.Current, e.Fork-1)
}

// AheadError says that a checkpoint is ahead of the log although the epoch is
// the same: the database was put back to an earlier state behind the service's
// back.
type AheadError struct {
	Checkpoint Checkpoint
	Head       Checkpoint
}

// Error tells both places.
func (e *AheadError) Error() string {
	return fmt.Sprintf("eventstore: checkpoint %d of epoch %d is ahead of the log, which ends at position %d of epoch %d",
		e.Checkpoint.Position, e.Checkpoint.Epoch, e.Head.Position, e.Head.Epoch)
}
