package domain

import (
	"errors"
	"fmt"
)

// Kind says what sort of failure an Error is. The transports map it to their
// own codes, each in one place (handlers/errors.go).
type Kind uint8

// The kinds of the wire's error model. The number is the gRPC status code.
const (
	KindCanceled           Kind = 1
	KindUnknown            Kind = 2
	KindInvalidArgument    Kind = 3
	KindDeadlineExceeded   Kind = 4
	KindNotFound           Kind = 5
	KindAlreadyExists      Kind = 6
	KindPermissionDenied   Kind = 7
	KindResourceExhausted  Kind = 8
	KindFailedPrecondition Kind = 9
	KindAborted            Kind = 10
	KindOutOfRange         Kind = 11
	KindUnimplemented      Kind = 12
	KindInternal           Kind = 13
	KindUnavailable        Kind = 14
	KindDataLoss           Kind = 15
	KindUnauthenticated    Kind = 16
)

// Error is the one error type that leaves a room for a caller's eyes.
//
// Message is fit to be shown to anyone: it never holds a value that the caller
// sent, so no secret and no personal data can leak through it. What a developer
// needs beyond it goes into Err, which is logged and never sent.
type Error struct {
	Kind Kind
	// ID is the stable identifier of the failure, such as "COMMAND-00p2b".
	// It is empty for failures that the wire shows without one (validation,
	// JSON, routing); those carry no error details either.
	ID string
	// Message is the English text, without the ID.
	Message string
	// Field is the JSON path of the offending field in the import request,
	// such as "email.email", where one can be named; reports use it.
	Field string
	// Err is the cause, if there is one.
	Err error
}

// Error returns the text as the wire shows it: the message, then the ID in
// parentheses.
func (e *Error) Error() string {
	if e.ID == "" {
		return e.Message
	}
	return e.Message + " (" + e.ID + ")"
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is an *Error with the same kind and ID, so that
// errors.Is works on errors made anew for each request.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Kind == e.Kind && t.ID == e.ID
}

// NewError makes an Error without a cause.
func NewError(kind Kind, id, message string) *Error {
	return &Error{Kind: kind, ID: id, Message: message}
}

// OnField returns a copy of e that names the offending field.
func (e *Error) OnField(path string) *Error {
	c := *e
	c.Field = path
	return &c
}

// Because returns a copy of e with a cause.
func (e *Error) Because(err error) *Error {
	c := *e
	c.Err = err
	return &c
}

// AsError finds the Error in err's chain. Any other error comes back wrapped
// as KindInternal with the wire's neutral text and err as its cause.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Kind: KindInternal, Message: "An internal error occurred", Err: err}
}

// Wrapf returns an internal error whose cause is described for developers.
func Wrapf(err error, format string, args ...any) *Error {
	return AsError(fmt.Errorf(format+": %w", append(args, err)...))
}
