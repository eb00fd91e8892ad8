package handlers

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/labstack/echo/v4"
	"golang.org/x/text/language"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
	zitadelv1 "github.com/muster-id/muster/proto/zitadel/v1"
)

// This file is the only place where a failure becomes something on the wire:
// a status, a body, a gRPC trailer, a text in the caller's language.

// httpStatus maps kinds, which are gRPC codes, to HTTP.
var httpStatus = map[domain.Kind]int{
	domain.KindCanceled:           499,
	domain.KindUnknown:            http.StatusInternalServerError,
	domain.KindInvalidArgument:    http.StatusBadRequest,
	domain.KindDeadlineExceeded:   http.StatusGatewayTimeout,
	domain.KindNotFound:           http.StatusNotFound,
	domain.KindAlreadyExists:      http.StatusConflict,
	domain.KindPermissionDenied:   http.StatusForbidden,
	domain.KindResourceExhausted:  http.StatusTooManyRequests,
	domain.KindFailedPrecondition: http.StatusBadRequest,
	domain.KindAborted:            http.StatusConflict,
	domain.KindOutOfRange:         http.StatusBadRequest,
	domain.KindUnimplemented:      http.StatusNotImplemented,
	domain.KindInternal:           http.StatusInternalServerError,
	domain.KindUnavailable:        http.StatusServiceUnavailable,
	domain.KindDataLoss:           http.StatusInternalServerError,
	domain.KindUnauthenticated:    http.StatusUnauthorized,
}

// The failures that only this room can meet.
var (
	errNotFound        = &domain.Error{Kind: domain.KindNotFound, Message: "Not Found"}
	errMethod          = &domain.Error{Kind: domain.KindUnimplemented, Message: "Method Not Allowed"}
	errUnimplemented   = &domain.Error{Kind: domain.KindUnimplemented, Message: "Not Implemented"}
	errTooLarge        = &domain.Error{Kind: domain.KindResourceExhausted, Message: "request is too large"}
	errCanceled        = &domain.Error{Kind: domain.KindCanceled, Message: "context canceled"}
	errDeadline        = &domain.Error{Kind: domain.KindDeadlineExceeded, Message: "context deadline exceeded"}
	errRate            = domain.NewError(domain.KindResourceExhausted, "QUOTA-vjAy8", "Too many requests")
	errUnavailable     = domain.NewError(domain.KindUnavailable, "MUSTER-unavailable", "Service is busy, try again")
	errIdempotency     = domain.NewError(domain.KindInvalidArgument, "MUSTER-idempotency", "Idempotency key was used for another request")
	errIdempotencyForm = domain.NewError(domain.KindInvalidArgument, "MUSTER-idempotencykey", "Idempotency key must be 1 to 255 visible characters")
	errPosition        = domain.NewError(domain.KindInvalidArgument, "MUSTER-position", "Position must be a number or a position token")
	errOtherHistory    = domain.NewError(domain.KindFailedPrecondition, "MUSTER-history", "Position belongs to another history of the log")
	errNotYet          = &domain.Error{Kind: domain.KindDeadlineExceeded, ID: "MUSTER-notyet", Message: "the log is at position %d, position %d was asked for"}
	errErased          = domain.NewError(domain.KindNotFound, "MUSTER-erased", "User has been erased")
	errNewer           = domain.NewError(domain.KindUnavailable, "MUSTER-newer", "A newer version of this service has written an event that this one does not know")
	errBusyUser        = domain.NewError(domain.KindAborted, "MUSTER-busy", "User is being changed by others, try again")
)

// asError says what kind of failure err is. What nobody foresaw is internal,
// with err as the cause.
func asError(err error) *domain.Error {
	var (
		own      *domain.Error
		tooLarge *http.MaxBytesError
		route    *echo.HTTPError
		database *pgconn.PgError
	)
	switch {
	case errors.Is(err, domain.ErrUnknownEvent):
		// While instances are replaced one by one, a newer one can answer.
		return errNewer.Because(err)
	case errors.As(err, &own):
		return own
	case errors.As(err, &database) && database.Code == "22021":
		// PostgreSQL takes no NUL character in a text; nobody has one.
		return domain.ErrTextInvalid
	case errors.As(err, &tooLarge):
		return errTooLarge
	case errors.Is(err, eventstore.ErrIdempotencyMismatch):
		return errIdempotency
	case errors.Is(err, eventstore.ErrUnavailable):
		return errUnavailable.Because(err)
	case errors.Is(err, eventstore.ErrErased):
		return errErased
	case errors.Is(err, context.Canceled):
		return errCanceled
	case errors.Is(err, context.DeadlineExceeded):
		return errDeadline
	case errors.As(err, &route) && route.Code == http.StatusNotFound:
		return errNotFound
	case errors.As(err, &route) && route.Code == http.StatusMethodNotAllowed:
		return errMethod
	}
	return domain.AsError(err)
}

// statusOf is the HTTP status of a failure. The contract has two exceptions to
// the kinds: a method that the path does not have, and an idempotency key that
// is repeated with another request.
func statusOf(e *domain.Error) int {
	switch {
	case e.ID == "" && e.Message == errMethod.Message:
		return http.StatusMethodNotAllowed
	case e.ID == errIdempotency.ID:
		return http.StatusUnprocessableEntity
	}
	if s, ok := httpStatus[e.Kind]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// failure judges err for a call: it logs what an operator has to see, and
// translates what the caller is to see.
func (s *server) failure(ctx context.Context, c *call, err error) *domain.Error {
	e := asError(err)
	c.failed = e
	switch e.Kind {
	case domain.KindInternal, domain.KindUnknown, domain.KindDataLoss:
		s.deps.Log.LogAttrs(ctx, slog.LevelError, "a call failed", slog.String("request", c.id),
			slog.String("id", e.ID), slog.Any("error", e.Err))
	case domain.KindUnavailable:
		s.deps.Log.LogAttrs(ctx, slog.LevelWarn, "a call was turned away", slog.String("request", c.id),
			slog.String("id", e.ID), slog.Any("error", e.Err))
	default: // the caller's affair
	}
	return translate(e, c.header.Get("Accept-Language"))
}

// errorBody is google.rpc.Status in JSON. Errors without an id have no details
// key at all.
type errorBody struct {
	Code    int           `json:"code"`
	Message string        `json:"message"`
	Details []errorDetail `json:"details,omitempty"`
}

type errorDetail struct {
	Type    string `json:"@type"`
	ID      string `json:"id"`
	Message string `json:"message"`
}

func bodyOf(e *domain.Error) errorBody {
	b := errorBody{Code: int(e.Kind), Message: e.Error()}
	if e.ID != "" {
		b.Details = []errorDetail{{"type.googleapis.com/zitadel.v1.ErrorDetail", e.ID, e.Message}}
	}
	return b
}

// writeError answers a REST call.
func writeError(w http.ResponseWriter, e *domain.Error) {
	body, err := json.Marshal(bodyOf(e))
	if err != nil {
		body = []byte(`{"code":13,"message":"An internal error occurred"}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if e.Kind == domain.KindUnauthenticated {
		h.Set("WWW-Authenticate", e.Error())
	}
	w.WriteHeader(statusOf(e))
	_, _ = w.Write(body) // the caller may be gone; the access log says how much arrived
}

// connectError answers an RPC in whichever protocol it came.
func connectError(e *domain.Error) *connect.Error {
	out := connect.NewError(connect.Code(e.Kind), errors.New(e.Error()))
	if e.ID != "" {
		detail, err := connect.NewErrorDetail(&zitadelv1.ErrorDetail{Id: e.ID, Message: e.Message})
		if err == nil {
			out.AddDetail(detail)
		}
	}
	if e.Kind == domain.KindUnauthenticated {
		out.Meta().Set("WWW-Authenticate", e.Error())
	}
	return out
}

//go:embed locales/*.json
var localeFiles embed.FS

// languages that texts exist in; the first is what everyone else gets.
var languages = []language.Tag{language.English, language.German, language.French, language.Italian, language.Spanish}

var (
	matcher    = language.NewMatcher(languages)
	catalogues = loadCatalogues()
)

// catalogue maps English texts to translations. The text is the key, and not
// the id: many ids share one text, and one id of the wire's has two. A text that
// ends in a blank goes on with something that needs no translation.
type catalogue map[string]string

func (c catalogue) translate(text string) (string, bool) {
	if t, ok := c[text]; ok {
		return t, true
	}
	for i := strings.LastIndexByte(text, ' '); i >= 0; i = strings.LastIndexByte(text[:i], ' ') {
		if t, ok := c[text[:i+1]]; ok {
			return t + text[i+1:], true
		}
	}
	return "", false
}

func loadCatalogues() []catalogue {
	out := make([]catalogue, len(languages))
	for i, tag := range languages[1:] {
		b, err := localeFiles.ReadFile("locales/" + tag.String() + ".json")
		if err == nil {
			err = json.Unmarshal(b, &out[i+1])
		}
		if err != nil {
			panic(fmt.Sprintf("handlers: catalogue %s: %v", tag, err)) // embedded: a broken build
		}
	}
	return out
}

// translate puts e's message into the best language of an Accept-Language
// header. Texts without a translation stay as they are; among them, as the
// wire has it, those of authentication.
func translate(e *domain.Error, accept string) *domain.Error {
	if accept == "" || e.ID == "" || strings.HasPrefix(e.ID, "AUTH") {
		return e
	}
	tags, _, err := language.ParseAcceptLanguage(accept)
	if err != nil || len(tags) == 0 {
		return e
	}
	_, i, _ := matcher.Match(tags...)
	text, ok := catalogues[i].translate(e.Message)
	if !ok {
		return e
	}
	t := *e
	t.Message = text
	return &t
}
