// Package handlers is the service's outside: REST, gRPC, gRPC-Web and Connect
// on one port. It decodes, asks the room that knows, and encodes.
//
// Every method is one Go function, registered once and served over all
// protocols. Every call takes the same steps in the same order: decoding,
// authentication, permission, validation, command. Every failure becomes what
// the wire shows in one place, errors.go.
package handlers

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"
	"github.com/labstack/echo/v4"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/handlers/access"
	"github.com/muster-id/muster/handlers/signin"
	"github.com/muster-id/muster/importer"
	"github.com/muster-id/muster/projections"
)

// Deps is what the handlers serve. Fields without a default are required.
type Deps struct {
	Store         *eventstore.Store
	Importer      *importer.Importer
	Projections   *projections.Engine
	Tokens        *access.Tokens
	Organisations *access.Organisations

	// Log gets one line a request and one a failure; never a secret, never a
	// person's data. Default: nothing.
	Log *slog.Logger
	// Now is the clock. Default: the system's.
	Now func() time.Time
	// Timeout bounds one call. Default 30 s.
	Timeout time.Duration
	// Patience bounds how long a read waits for a position. Default 5 s.
	Patience time.Duration
	// MaxBody bounds a request's body in bytes. Default 4 MiB.
	MaxBody int
	// PublicURL, such as "https://id.example.org", begins the links that the
	// service makes. Empty: the scheme and host that the call arrived on.
	PublicURL string
	// TrustedProxies are the peers whose forwarding headers are believed.
	TrustedProxies []netip.Prefix
	// AllowedOrigins are the origins that browsers may call from; "*" stands
	// for any. Empty: none.
	AllowedOrigins []string
	// Rate is how many calls a second one token may make, Burst how many at
	// once. Zero: no limit.
	Rate  float64
	Burst int

	// Ready reports why the service should get no calls just now; nil when it
	// should. Default: always ready.
	Ready func(context.Context) error
	// Metrics serves /metrics. Default: no such path.
	Metrics http.Handler
	// Observe is told of every request: its route, its HTTP status and how
	// long it took. Default: nobody is.
	Observe func(route string, status int, took time.Duration)
	// Bulk serves the import URL's application/x-ndjson bodies. It writes the
	// whole answer by itself; an error that it returns is written for it, so
	// it must not have begun to answer then. Default: Unimplemented.
	Bulk func(w http.ResponseWriter, r *http.Request, caller importer.Caller, origin string) error
	// Jobs serves /v1/imports. Default: no such paths.
	Jobs *importer.Jobs
	// Rebuilds runs the rebuilds of read models that are asked for over HTTP.
	// Default: no such calls.
	Rebuilds *Rebuilds
	// Webhooks serves /v1/webhooks. Default: no such paths.
	Webhooks *consumers.Webhooks
	// SignIn is behind the pages on which people complete their accounts and
	// log in. Default: no such pages.
	SignIn *signin.Service
	// DefaultOrg is the organisation whose name those pages bear while nobody
	// knows who looks at them.
	DefaultOrg string
	// Stopping is closed when the service begins to shut down: open streams of
	// events end then. Default: they end when the reader goes.
	Stopping <-chan struct{}
	// Extend adds routes that are not the wire's, such as pages. It may be nil.
	Extend func(*echo.Echo)
}

type server struct {
	deps   Deps
	echo   *echo.Echo
	limits *limits
	// methods are the wire's that are served; endpoints are the other routes,
	// extras what the methods take beside their messages.
	methods   []protoreflect.MethodDescriptor
	endpoints []endpoint
	extras    map[protoreflect.FullName][]parameter
	// logID is the log's, which every write's answer names.
	logID string
	// streams has one entry for each open stream of events.
	streams chan struct{}
	// unimplemented answers the methods that there are not.
	unimplemented http.Handler
}

// New returns the service's handler.
func New(d Deps) http.Handler {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Timeout <= 0 {
		d.Timeout = 30 * time.Second
	}
	if d.Patience <= 0 {
		d.Patience = 5 * time.Second
	}
	if d.MaxBody <= 0 {
		d.MaxBody = 4 << 20
	}
	if d.Ready == nil {
		d.Ready = func(context.Context) error { return nil }
	}
	d.PublicURL = strings.TrimRight(d.PublicURL, "/")
	s := &server{deps: d, echo: echo.New(), limits: newLimits(d.Rate, d.Burst, d.Now), logID: d.Store.LogID().String(), extras: map[protoreflect.FullName][]parameter{}}
	s.echo.HideBanner, s.echo.HidePort = true, true
	s.echo.HTTPErrorHandler = s.answerError
	s.echo.Use(s.around)

	s.bindManagement()
	s.bindUserV2()
	s.bindSessions()
	s.bindAdmin()
	s.bindAccess()
	s.bindImports()
	s.bindOperation()
	s.bindCounts()
	s.bindWebhooks()
	s.bindEvents()
	s.serveRPCTools()
	s.serveOperation()
	s.servePages()
	s.serveConsole()
	s.serveOpenAPI() // describes what has been registered
	if d.Extend != nil {
		d.Extend(s.echo)
	}
	return s.echo
}

// NewHTTPServer returns a server for addr that speaks HTTP/1.1 and HTTP/2, the
// latter also in clear text with prior knowledge, as gRPC clients expect it.
// Ending it is the caller's: Shutdown finishes what was accepted.
func NewHTTPServer(addr string, h http.Handler, log *slog.Logger) *http.Server {
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(true)
	return &http.Server{
		Addr:              addr,
		Handler:           roomy(h),
		Protocols:         &p,
		ReadHeaderTimeout: 10 * time.Second,
		// Bodies and answers are bounded call by call: bulk imports stream
		// for as long as they need.
		IdleTimeout:    2 * time.Minute,
		MaxHeaderBytes: 64 << 10,
		HTTP2:          &http.HTTP2Config{MaxConcurrentStreams: 1000},
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// roomy lets each HTTP/2 call begin with the stack that it is going to need. Its
// goroutine is new and starts small; left alone, the stack is copied twice on the
// way down, when there is much on it. HTTP/1.1 keeps a connection's goroutine.
func roomy(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 {
			growStack(len(r.Method))
		}
		h.ServeHTTP(w, r)
	})
}

// growStack needs 11 KiB of stack, which makes it 16 KiB large: the size that
// the runtime still keeps at hand.
//
//go:noinline
func growStack(i int) byte {
	var room [11 << 10]byte
	return room[i]
}

// answerError is where every failure of a REST call ends up.
func (s *server) answerError(err error, e echo.Context) {
	if e.Response().Committed {
		return
	}
	ctx := e.Request().Context()
	writeError(e.Response(), s.failure(ctx, callOf(ctx), err))
}

// serveRPCTools serves reflection and health for grpcurl and its like.
func (s *server) serveRPCTools() {
	names := map[string]bool{}
	var services []string
	for _, m := range s.methods {
		if n := string(m.Parent().FullName()); !names[n] {
			names[n] = true
			services = append(services, n)
		}
	}
	services = append(services, grpchealth.HealthV1ServiceName)
	mount := func(path string, h http.Handler) { s.echo.Any(path+"*", echo.WrapHandler(h)) }
	mount(grpchealth.NewHandler(health{s.deps.Ready, services}))
	reflector := grpcreflect.NewStaticReflector(services...)
	mount(grpcreflect.NewHandlerV1(reflector))
	mount(grpcreflect.NewHandlerV1Alpha(reflector))

	s.unimplemented = connect.NewUnaryHandler("/", func(context.Context, *connect.Request[emptypb.Empty]) (*connect.Response[emptypb.Empty], error) {
		return nil, connectError(errUnimplemented)
	}, s.rpcOptions()...)
}

// isRPC reports whether a request that no route has taken was meant for a
// method: its path names one, or it speaks gRPC.
func isRPC(r *http.Request) bool {
	service, method, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	named := ok && strings.Contains(service, ".") && method != "" && !strings.Contains(method, "/")
	return r.Method == http.MethodPost && (named || isGRPC(r))
}

// health answers grpc.health.v1.
type health struct {
	ready    func(context.Context) error
	services []string
}

// Check implements grpchealth.Checker.
func (h health) Check(ctx context.Context, req *grpchealth.CheckRequest) (*grpchealth.CheckResponse, error) {
	if req.Service != "" {
		found := false
		for _, n := range h.services {
			found = found || n == req.Service
		}
		if !found {
			return nil, connect.NewError(connect.CodeNotFound, nil)
		}
	}
	if h.ready(ctx) != nil {
		return &grpchealth.CheckResponse{Status: grpchealth.StatusNotServing}, nil //nolint:nilerr // that is the answer
	}
	return &grpchealth.CheckResponse{Status: grpchealth.StatusServing}, nil
}

// serveOperation serves what watches the service rather than uses it.
func (s *server) serveOperation() {
	state := func(path, summary string, h echo.HandlerFunc) {
		s.serve(endpoint{verb: http.MethodGet, path: path, summary: summary, answer: media{"text/plain"}}, h)
	}
	state("/healthz", "Whether the process runs", func(e echo.Context) error { return e.String(http.StatusOK, "ok\n") })
	state("/readyz", "Whether the service should get calls", func(e echo.Context) error {
		ctx, cancel := context.WithTimeout(e.Request().Context(), 2*time.Second)
		defer cancel()
		if err := s.deps.Ready(ctx); err != nil {
			s.deps.Log.LogAttrs(ctx, slog.LevelWarn, "not ready", slog.Any("error", err))
			return e.String(http.StatusServiceUnavailable, "not ready\n")
		}
		return e.String(http.StatusOK, "ready\n")
	})
	if s.deps.Metrics != nil {
		state("/metrics", "Metrics in Prometheus' form", echo.WrapHandler(s.deps.Metrics))
	}
}
