package hostile

import (
	"context"
	"fmt"
	"slices"
	"testing"
)

// frame is what pgtest's servers need of a test, for use outside of one. What
// is fatal to a test unwinds to rescue.
type frame struct {
	testing.TB // never called: what pgtest uses is below
	ctx        context.Context
	cleanups   []func()
	errs       []string
}

type fatal string

func (f *frame) Helper()                  {}
func (f *frame) Context() context.Context { return f.ctx }
func (f *frame) Cleanup(fn func())        { f.cleanups = append(f.cleanups, fn) }
func (f *frame) Fatal(args ...any)        { panic(fatal(fmt.Sprint(args...))) }
func (f *frame) Fatalf(format string, args ...any) {
	panic(fatal(fmt.Sprintf(format, args...)))
}
func (f *frame) Errorf(format string, args ...any) {
	f.errs = append(f.errs, fmt.Sprintf(format, args...))
}

// end runs the cleanups and adds to err what they complained of.
func (f *frame) end(err *error) {
	for _, fn := range slices.Backward(f.cleanups) {
		fn()
	}
	if len(f.errs) > 0 && *err == nil {
		*err = fmt.Errorf("hostile: cleaning up: %v", f.errs)
	}
}

// rescue turns what was fatal into an error.
func rescue(err *error) {
	switch r := recover().(type) {
	case nil:
	case fatal:
		*err = fmt.Errorf("hostile: %s", string(r))
	default:
		panic(r)
	}
}
