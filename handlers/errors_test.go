package handlers

import (
	"errors"
	"net/http/httptest"
	"testing"

	"connectrpc.com/connect"

	"github.com/muster-id/muster/domain"
)

// TestKindsOnTheWire is CONTRACT.md §7.2, row by row: the code and the status
// of each kind, and the body of §7.1.
func TestKindsOnTheWire(t *testing.T) {
	for _, c := range []struct {
		name         string
		kind         domain.Kind
		code, status int
	}{
		{"InvalidArgument", domain.KindInvalidArgument, 3, 400},
		{"PreconditionFailed", domain.KindFailedPrecondition, 9, 400},
		{"OutOfRange", domain.KindOutOfRange, 11, 400},
		{"Unauthenticated", domain.KindUnauthenticated, 16, 401},
		{"PermissionDenied", domain.KindPermissionDenied, 7, 403},
		{"NotFound", domain.KindNotFound, 5, 404},
		{"AlreadyExists", domain.KindAlreadyExists, 6, 409},
		{"Aborted", domain.KindAborted, 10, 409},
		{"ResourceExhausted", domain.KindResourceExhausted, 8, 429},
		{"Canceled", domain.KindCanceled, 1, 499},
		{"Internal", domain.KindInternal, 13, 500},
		{"Unknown", domain.KindUnknown, 2, 500},
		{"DataLoss", domain.KindDataLoss, 15, 500},
		{"Unimplemented", domain.KindUnimplemented, 12, 501},
		{"Unavailable", domain.KindUnavailable, 14, 503},
		{"DeadlineExceeded", domain.KindDeadlineExceeded, 4, 504},
	} {
		e := domain.NewError(c.kind, "ID-1", "Text")
		w := httptest.NewRecorder()
		writeError(w, e)
		want := `"message":"Text (ID-1)","details":[{"@type":"type.googleapis.com/zitadel.v1.ErrorDetail","id":"ID-1","message":"Text"}]}`
		if b := bodyOf(e); b.Code != c.code || w.Code != c.status || w.Body.String()[len(w.Body.String())-len(want):] != want {
			t.Errorf("%s: code %d, status %d, %s", c.name, b.Code, w.Code, w.Body)
		}
		if authenticate := w.Header().Get("WWW-Authenticate"); (authenticate == "Text (ID-1)") != (c.status == 401) {
			t.Errorf("%s: WWW-Authenticate %q", c.name, authenticate)
		}
		rpc := connectError(e)
		if int(rpc.Code()) != c.code || rpc.Message() != "Text (ID-1)" || len(rpc.Details()) != 1 || (rpc.Meta().Get("WWW-Authenticate") != "") != (c.status == 401) {
			t.Errorf("%s over gRPC: %v", c.name, rpc)
		}
	}
	// What nobody foresaw is internal, and tells nothing of itself.
	e := asError(errors.New("a secret"))
	w := httptest.NewRecorder()
	writeError(w, e)
	if w.Code != 500 || w.Body.String() != `{"code":13,"message":"An internal error occurred"}` {
		t.Errorf("unforeseen: %d %s", w.Code, w.Body)
	}
	if c := connectError(e); c.Code() != connect.CodeInternal || c.Message() != "An internal error occurred" || len(c.Details()) != 0 {
		t.Errorf("unforeseen over gRPC: %v", c)
	}
}
