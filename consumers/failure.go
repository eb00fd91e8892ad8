package consumers

import (
	"context"
	"errors"
	"net"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
)

// Failure is an error that tells the Subscriber what to make of it. A handler
// that returns any other error is tried again, as often as Attempts says.
type Failure struct {
	// Class is a short stable word such as "mailbox_unknown". It is stored and
	// shown, so it never holds a value.
	Class string
	// Permanent says that trying again is useless: the stream is parked at
	// once.
	Permanent bool
	// Outage says that it is not this event but the way to the destination
	// that fails: the whole consumer pauses with backoff, nothing is parked,
	// and the try does not count.
	Outage bool
	// Err is the cause; it must be fit for a log.
	Err error
}

// Error returns the class and the cause.
func (f *Failure) Error() string {
	if f.Err == nil {
		return f.Class
	}
	return f.Class + ": " + f.Err.Error()
}

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Err }

// The classes that this package gives by itself.
const (
	ClassUnknown       = "nack"           // the handler gave no reason
	ClassError         = "error"          // an error of no known kind
	ClassTimeout       = "timeout"        // the handler's time was up
	ClassNetwork       = "network"        // a net.Error
	ClassPanic         = "panic"          // the handler panicked
	ClassUndecodable   = "undecodable"    // an event of a later program
	ClassKilledProcess = "killed_process" // the process died of it, repeatedly
)

func failureOf(err error) *Failure {
	var f *Failure
	var n net.Error
	var p middleware.RecoveredPanicError
	switch {
	case err == nil:
		return &Failure{Class: ClassUnknown}
	case errors.As(err, &f):
		return f
	case errors.As(err, &p):
		return &Failure{Class: ClassPanic}
	case errors.Is(err, context.DeadlineExceeded):
		return &Failure{Class: ClassTimeout}
	case errors.As(err, &n):
		return &Failure{Class: ClassNetwork}
	}
	return &Failure{Class: ClassError}
}

// Classify is a Watermill middleware that lets the Subscriber see why a handler
// failed, which a nack alone does not tell. Add it first, so that it is
// outermost. Without it every failure is of class "nack", and neither Permanent
// nor Outage has an effect.
func Classify(h message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) (out []*message.Message, err error) {
		d, ok := msg.Context().Value(deliveryKey{}).(*delivery)
		if !ok {
			return h(msg)
		}
		defer func() {
			if r := recover(); r != nil {
				d.fail(&Failure{Class: ClassPanic})
				panic(r)
			}
			d.fail(err)
		}()
		return h(msg)
	}
}

func (d *delivery) fail(err error) {
	d.mu.Lock()
	d.failure = err
	d.mu.Unlock()
}

func (d *delivery) reason() *Failure {
	d.mu.Lock()
	defer d.mu.Unlock()
	return failureOf(d.failure)
}
