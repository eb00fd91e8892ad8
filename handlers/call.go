package handlers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/oklog/ulid/v2"
	"golang.org/x/time/rate"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/handlers/access"
)

// call is what is known about one request beside its message. It belongs to
// the request's goroutine.
type call struct {
	// id names the request in answers and logs.
	id string
	// header is the request's: for RPCs, the metadata.
	header http.Header
	// query is the URL's: what REST has beside the message; nil for none.
	query url.Values
	// out is the answer's header; an RPC's, until its answer is made.
	out http.Header
	// origin is the scheme and host that links are built on.
	origin string
	// token and org are who calls, and in which organisation; set by
	// authenticate.
	token access.Token
	org   string
	// failed is what the call failed with, for the access log.
	failed *domain.Error
}

type callKey struct{}

// callOf finds the request's call; around has put one into every context.
func callOf(ctx context.Context) *call {
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		panic("handlers: a request that has not come in through around")
	}
	return c
}

// around surrounds every request: it names it, bounds it, sets the headers
// that every answer has, catches what panics, and logs one line.
func (s *server) around(next echo.HandlerFunc) echo.HandlerFunc {
	return func(e echo.Context) error {
		started := s.deps.Now()
		r, w := e.Request(), e.Response()
		h := w.Header()
		c := &call{id: requestID(r), header: r.Header, out: h, origin: s.origin(r)}
		if r.URL.RawQuery != "" {
			c.query = r.URL.Query()
		}
		h["X-Request-Id"] = []string{c.id}
		if !isPlainGRPC(r) {
			for _, f := range everyAnswer {
				h[f.name] = f.value
			}
			h["Expires"] = []string{started.UTC().Format(http.TimeFormat)}
		}
		e.SetRequest(r.WithContext(context.WithValue(r.Context(), callKey{}, c)))

		err := s.guarded(e, next)
		if err != nil {
			e.Error(err)
		}
		route := e.Path()
		took := s.deps.Now().Sub(started)
		if s.deps.Observe != nil {
			s.deps.Observe(route, w.Status, took)
		}
		s.logAccess(r.Context(), c, r.Method, route, r.Proto, w.Status, w.Size, took)
		return nil
	}
}

// everyAnswer are the headers that every answer has, in the form in which they
// are kept. Nobody changes a value in its place: the slices are everyone's.
var everyAnswer = []struct {
	name  string
	value []string
}{
	{"Cache-Control", []string{"no-store"}},
	{"Pragma", []string{"no-cache"}},
	{"X-Content-Type-Options", []string{"nosniff"}},
	{"X-Frame-Options", []string{"DENY"}},
	{"X-Robots-Tag", []string{"none"}},
	{"Referrer-Policy", []string{"same-origin"}},
	{"Content-Security-Policy", []string{"default-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'none'"}},
}

// isPlainGRPC reports whether a request speaks gRPC and not gRPC-Web: no cache
// and no browser ever sees the answer, which goes without what is for them.
func isPlainGRPC(r *http.Request) bool {
	return isGRPC(r) && !strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc-web")
}

// guarded answers browsers' preflights, bounds bodies and deadlines, and turns
// a panic into an internal error.
func (s *server) guarded(e echo.Context, next echo.HandlerFunc) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = recovered(p)
		}
	}()
	if s.cors(e) {
		return e.NoContent(http.StatusNoContent)
	}
	r := e.Request()
	if isBulk(r) {
		return s.serveBulk(e)
	}
	readDeadline(e.Response(), s.deps.Timeout)
	if !isGRPC(r) { // the RPC library bounds messages by itself
		r.Body = http.MaxBytesReader(e.Response(), r.Body, int64(s.deps.MaxBody))
	}
	err = next(e)
	if (errors.Is(err, echo.ErrNotFound) || errors.Is(err, echo.ErrMethodNotAllowed)) && isRPC(r) {
		s.unimplemented.ServeHTTP(e.Response(), r)
		return nil
	}
	return err
}

// recovered is the error that a panic becomes, unless it is the HTTP server's
// own way of giving a connection up.
func recovered(p any) error {
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p)
	}
	return domain.AsError(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
}

// logAccess writes one line. It has the route instead of the path, which holds
// ids and search terms, and an error's id instead of its text, which may hold
// what the caller sent.
func (s *server) logAccess(ctx context.Context, c *call, method, route, proto string, status int, size int64, took time.Duration) {
	if !s.deps.Log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	attrs := []slog.Attr{
		slog.String("request", c.id), slog.String("method", method), slog.String("route", route),
		slog.String("proto", proto), slog.Int("status", status), slog.Int64("bytes", size), slog.Duration("took", took),
	}
	if c.token.ID != "" {
		attrs = append(attrs, slog.String("token", c.token.ID), slog.String("org", c.org))
	}
	if c.failed != nil {
		attrs = append(attrs, slog.Int("code", int(c.failed.Kind)), slog.String("error_id", c.failed.ID))
	}
	s.deps.Log.LogAttrs(ctx, slog.LevelInfo, "request", attrs...)
}

// requestID takes the caller's, when it is fit to be logged, or makes one.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	fit := len(id) > 0 && len(id) <= 64 && strings.IndexFunc(id, func(c rune) bool {
		return !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_' || c == '.')
	}) < 0
	if fit {
		return id
	}
	return ulid.MustNew(ulid.Now(), rand.Reader).String()
}

// exposed are the answer's headers that a browser's script may read.
var exposed = strings.Join([]string{"Grpc-Status", "Grpc-Message", "Grpc-Status-Details-Bin", "X-Request-Id",
	positionHeader, positionTokenHeader, throughHeader, nextPageHeader, changeHeader, "Location", "WWW-Authenticate"}, ", ")

// cors sets the headers for browsers on an allowed origin, and reports whether
// the request was a preflight, which wants nothing more.
func (s *server) cors(e echo.Context) bool {
	if len(s.deps.AllowedOrigins) == 0 {
		return false
	}
	r, h := e.Request(), e.Response().Header()
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if origin == "" || !slices.Contains(s.deps.AllowedOrigins, origin) && !slices.Contains(s.deps.AllowedOrigins, "*") {
		return false
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Allow-Credentials", "true")
	h.Set("Access-Control-Expose-Headers", exposed)
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE, OPTIONS")
	h.Set("Access-Control-Allow-Headers", r.Header.Get("Access-Control-Request-Headers"))
	h.Set("Access-Control-Max-Age", "3600")
	return true
}

// origin is the scheme and host that the caller used: the configured one, else
// what a trusted proxy says, else what the request itself says.
func (s *server) origin(r *http.Request) string {
	if s.deps.PublicURL != "" {
		return s.deps.PublicURL
	}
	scheme, host := "http", r.Host
	if r.TLS != nil {
		scheme = "https"
	}
	if s.trusted(r.RemoteAddr) {
		forwardedProto, forwardedHost := forwarded(r.Header)
		for _, name := range []string{"X-Zitadel-Public-Host", "X-Zitadel-Instance-Host"} {
			if v := r.Header.Get(name); v != "" {
				forwardedHost = v
				break
			}
		}
		if forwardedProto == "http" || forwardedProto == "https" {
			scheme = forwardedProto
		}
		if forwardedHost != "" && !strings.ContainsAny(forwardedHost, "/?#@\\ \t\"<>") {
			host = forwardedHost
		}
	}
	return scheme + "://" + host
}

func (s *server) trusted(peer string) bool {
	if len(s.deps.TrustedProxies) == 0 {
		return false
	}
	host, _, err := net.SplitHostPort(peer)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && slices.ContainsFunc(s.deps.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(addr.Unmap()) })
}

// forwarded reads RFC 7239's header, else the older pair; the first hop's
// word counts.
func forwarded(h http.Header) (proto, host string) {
	first := func(v string) string {
		v, _, _ = strings.Cut(v, ",")
		return strings.TrimSpace(v)
	}
	if f := first(h.Get("Forwarded")); f != "" {
		for pair := range strings.SplitSeq(f, ";") {
			name, value, _ := strings.Cut(pair, "=")
			value = strings.Trim(strings.TrimSpace(value), `"`)
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "proto":
				proto = strings.ToLower(value)
			case "host":
				host = value
			}
		}
		return proto, host
	}
	return strings.ToLower(first(h.Get("X-Forwarded-Proto"))), first(h.Get("X-Forwarded-Host"))
}

// authenticate finds out who calls, in which organisation, and whether they
// may.
func (s *server) authenticate(ctx context.Context, c *call, perm access.Permission) error {
	token, err := s.deps.Tokens.Authenticate(ctx, c.header.Get("Authorization"))
	if err != nil {
		return err
	}
	c.token = token
	if !s.limits.allow(token.ID) {
		c.out.Set("Retry-After", "1")
		return errRate
	}
	org := c.header.Get("X-Zitadel-Orgid")
	if org == "" {
		org = token.Org
	}
	if err := s.mayEnter(ctx, token, org); err != nil {
		return err
	}
	if !token.Role.May(perm) {
		return access.ErrNoPermission
	}
	c.org = org
	return nil
}

// mayEnter judges whether a token may call in an organisation at all.
func (s *server) mayEnter(ctx context.Context, token access.Token, org string) error {
	exists, err := s.deps.Organisations.Exists(ctx, org)
	switch {
	case err != nil:
		return err
	case !exists:
		return access.ErrNoOrg
	case org != token.Org && !token.Role.AnyOrganisation():
		return access.ErrNoMembership
	}
	return nil
}

// limits bounds how often each token may call.
type limits struct {
	rate  rate.Limit
	burst int
	now   func() time.Time

	mu   sync.Mutex // guards what follows
	each map[string]*rate.Limiter
}

func newLimits(perSecond float64, burst int, now func() time.Time) *limits {
	if perSecond <= 0 {
		return nil
	}
	return &limits{rate: rate.Limit(perSecond), burst: max(burst, 1), now: now, each: map[string]*rate.Limiter{}}
}

// allow counts one call of a token. Only known tokens get here, so the map is
// no larger than their table.
func (l *limits) allow(token string) bool {
	if l == nil {
		return true
	}
	l.mu.Lock()
	limiter := l.each[token]
	if limiter == nil {
		limiter = rate.NewLimiter(l.rate, l.burst)
		l.each[token] = limiter
	}
	l.mu.Unlock()
	return limiter.AllowN(l.now(), 1)
}
