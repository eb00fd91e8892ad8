package handlers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"
	"github.com/labstack/echo/v4"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/handlers/access"
)

// A method is served over four protocols by one registration: bind. REST takes
// path, verb and body from the descriptor's google.api.http option; gRPC,
// gRPC-Web and Connect share one handler.

// route is a method's REST side.
type route struct {
	verb string
	// path is echo's form: /users/:id.
	path string
	// params are the path's variables, each the name of a field.
	params []string
	// body says that the request's body is the message.
	body bool
}

// message is a pointer to a generated struct T.
type message[T any] interface {
	*T
	proto.Message
}

// bind serves fn as the method of that full name, such as
// "zitadel.management.v1.ManagementService.ListUsers", to callers who hold
// perm. It panics on what only a programming error can cause.
func bind[Req, Resp any, PReq message[Req], PResp message[Resp]](
	s *server, name protoreflect.FullName, perm access.Permission, fn func(context.Context, *Req) (*Resp, error),
) {
	bindLong[Req, Resp, PReq, PResp](s, name, perm, s.deps.Timeout, fn)
}

// bindLong is bind for a method that may take as long as limit.
func bindLong[Req, Resp any, PReq message[Req], PResp message[Resp]](
	s *server, name protoreflect.FullName, perm access.Permission, limit time.Duration, fn func(context.Context, *Req) (*Resp, error),
) {
	desc := findMethod(name)
	procedure := fmt.Sprintf("/%s/%s", desc.Parent().FullName(), desc.Name())

	rpc := connect.NewUnaryHandler(procedure, func(ctx context.Context, req *connect.Request[Req]) (*connect.Response[Resp], error) {
		c := callOf(ctx)
		c.out = make(http.Header, 2)
		var out *Resp
		err := s.run(ctx, c, limit, perm, PReq(req.Msg), func(ctx context.Context) (err error) {
			out, err = fn(ctx, req.Msg)
			return err
		})
		if err != nil {
			e := connectError(s.failure(ctx, c, err))
			for k, v := range c.out {
				e.Meta()[k] = v
			}
			return nil, e
		}
		res := connect.NewResponse(out)
		for k, v := range c.out {
			res.Header()[k] = v
		}
		return res, nil
	}, append(s.rpcOptions(), connect.WithSchema(desc))...)
	s.echo.POST(procedure, func(e echo.Context) error {
		rpc.ServeHTTP(whole{e.Response()}, e.Request())
		return nil
	})
	s.methods = append(s.methods, desc)

	r, ok := routeOf(desc)
	if !ok {
		return
	}
	s.echo.Add(r.verb, r.path, func(e echo.Context) error {
		if isGRPC(e.Request()) {
			rpc.ServeHTTP(whole{e.Response()}, e.Request())
			return nil
		}
		ctx := e.Request().Context()
		c := callOf(ctx)
		c.header = metadata(c.header)
		req := PReq(new(Req))
		if err := decode(e, r, req); err != nil {
			return err
		}
		var out *Resp
		err := s.run(ctx, c, limit, perm, req, func(ctx context.Context) (err error) {
			out, err = fn(ctx, (*Req)(req))
			return err
		})
		if err != nil {
			return err
		}
		return writeMessage(e.Response(), PResp(out))
	})
}

// whole is a writer that cannot be flushed: an answer of one message goes out
// with its status.
type whole struct{ http.ResponseWriter }

// metadata is a REST call's header as the wire has it: a field whose name begins
// with Grpc-Metadata- stands for the rest of it, unless that is there by itself.
func metadata(h http.Header) http.Header {
	out := h
	for name, values := range h {
		bare, ok := strings.CutPrefix(name, "Grpc-Metadata-")
		if !ok || len(h[bare]) > 0 {
			continue
		}
		if len(out) == len(h) { // the request's own is the access log's and the server's
			out = h.Clone()
		}
		out[bare] = values
	}
	return out
}

func findMethod(name protoreflect.FullName) protoreflect.MethodDescriptor {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	m, ok := d.(protoreflect.MethodDescriptor)
	if err != nil || !ok {
		panic(fmt.Sprintf("handlers: %s is not a method: %v", name, err))
	}
	return m
}

func (s *server) rpcOptions() []connect.HandlerOption {
	return []connect.HandlerOption{
		connect.WithReadMaxBytes(s.deps.MaxBody),
		// Compressing small answers halves the rate and saves nothing.
		connect.WithCompressMinBytes(4 << 10),
	}
}

var variable = regexp.MustCompile(`\{([a-z_0-9]+)\}`)

func routeOf(m protoreflect.MethodDescriptor) (route, bool) {
	rule, ok := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
	if !ok || rule == nil {
		return route{}, false
	}
	r := route{body: rule.GetBody() == "*"}
	switch p := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		r.verb, r.path = http.MethodGet, p.Get
	case *annotations.HttpRule_Post:
		r.verb, r.path = http.MethodPost, p.Post
	case *annotations.HttpRule_Put:
		r.verb, r.path = http.MethodPut, p.Put
	case *annotations.HttpRule_Patch:
		r.verb, r.path = http.MethodPatch, p.Patch
	case *annotations.HttpRule_Delete:
		r.verb, r.path = http.MethodDelete, p.Delete
	default:
		return route{}, false
	}
	for _, v := range variable.FindAllStringSubmatch(r.path, -1) {
		r.params = append(r.params, v[1])
	}
	r.path = variable.ReplaceAllString(r.path, ":$1")
	return r, true
}

// isGRPC reports whether a request speaks gRPC or gRPC-Web, on whatever path.
func isGRPC(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc")
}

// run is every call's way, whichever protocol it came in: authentication,
// permission, validation, then the command. A panic becomes an internal error.
func (s *server) run(ctx context.Context, c *call, limit time.Duration, perm access.Permission, req proto.Message, fn func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = recovered(p)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := s.authenticate(ctx, c, perm); err != nil {
		return err
	}
	if err := validate(req); err != nil {
		return err
	}
	return fn(ctx)
}

// validate finds the first rule of the .proto files that a message breaks. The
// text is the generator's own, as the wire shows it.
func validate(m proto.Message) error {
	v, ok := m.(interface{ Validate() error })
	if !ok {
		return nil
	}
	if err := v.Validate(); err != nil {
		return &domain.Error{Kind: domain.KindInvalidArgument, Message: err.Error()}
	}
	return nil
}

// badRequest is a body or a parameter that cannot be read. Its text is what
// the wire shows, without the random blank of the JSON library's messages.
func badRequest(err error) error {
	return &domain.Error{Kind: domain.KindInvalidArgument, Message: strings.ReplaceAll(err.Error(), "\u00a0", " ")}
}

// decode fills m from a REST request: from the body or the query, then from
// the path.
func decode(e echo.Context, r route, m proto.Message) error {
	if r.body {
		if err := decodeJSON(e.Request().Body, e.Request().ContentLength, m); err != nil {
			return err
		}
	} else if err := decodeQuery(e.QueryParams(), m.ProtoReflect()); err != nil {
		return err
	}
	for _, name := range r.params {
		value := e.Param(name)
		// echo leaves a parameter escaped when the path was matched in its
		// raw form.
		if e.Request().URL.RawPath != "" {
			if u, err := url.PathUnescape(value); err == nil {
				value = u
			}
		}
		fd := m.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(name))
		if err := setText(m.ProtoReflect(), fd, value); err != nil {
			return badRequest(err)
		}
	}
	return nil
}

// decodeJSON reads one JSON value and ignores what follows it; nothing at all
// stands for an empty message. Unknown fields and enum names are ignored. The
// body's length is -1 when it is not known.
func decodeJSON(body io.Reader, length int64, m proto.Message) error {
	if length < 0 || length > pooledBody {
		return decodeValue(body, m)
	}
	// Nearly every body is one good value and nothing else. Then one pass is
	// enough; whatever else it is, the value is found and judged as if there
	// had been no such pass.
	b := bodies.Get().(*[]byte) //nolint:errcheck // nothing else is put there
	defer func() {
		clear(*b) // it held passwords
		bodies.Put(b)
	}()
	*b = (*b)[:length]
	n, err := io.ReadFull(body, *b)
	if err != nil { // cut off, or never there: what has come is judged first
		return decodeValue(io.MultiReader(bytes.NewReader((*b)[:n]), failing{err}), m)
	}
	if jsonForm.Unmarshal(*b, m) == nil {
		return nil
	}
	return decodeValue(bytes.NewReader(*b), m)
}

// pooledBody bounds the bodies that are read into a buffer which is kept.
const pooledBody = 16 << 10

var (
	jsonForm = protojson.UnmarshalOptions{DiscardUnknown: true}
	bodies   = sync.Pool{New: func() any { b := make([]byte, 0, pooledBody); return &b }}
)

// failing is what is left of a body that could not be read.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// decodeValue is decodeJSON for any body.
func decodeValue(body io.Reader, m proto.Message) error {
	var raw json.RawMessage
	switch err := json.NewDecoder(body).Decode(&raw); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return readError(err)
	}
	if err := jsonForm.Unmarshal(raw, m); err != nil {
		return badRequest(err)
	}
	return nil
}

// readError tells a body that is wrong from one that never came.
func readError(err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) || errors.Is(err, io.ErrUnexpectedEOF) {
		return badRequest(err)
	}
	if timeout := (interface{ Timeout() bool })(nil); errors.As(err, &timeout) && timeout.Timeout() {
		return errDeadline
	}
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return errTooLarge
	}
	// The connection broke: nobody reads the answer.
	return errCanceled
}

// decodeQuery sets the scalar fields that a query names, in either spelling,
// nested ones with dots; it ignores what it does not know.
func decodeQuery(q url.Values, m protoreflect.Message) error {
	for name, values := range q {
		target := m
		parts := strings.Split(name, ".")
		for i, part := range parts {
			fields := target.Descriptor().Fields()
			fd := fields.ByJSONName(part)
			if fd == nil {
				fd = fields.ByName(protoreflect.Name(part))
			}
			if fd == nil || fd.IsMap() || fd.IsList() {
				break
			}
			if i < len(parts)-1 {
				if fd.Message() == nil {
					break
				}
				target = target.Mutable(fd).Message()
				continue
			}
			if err := setText(target, fd, values[len(values)-1]); err != nil {
				return badRequest(err)
			}
		}
	}
	return nil
}

func setText(m protoreflect.Message, fd protoreflect.FieldDescriptor, text string) error {
	var (
		v   any
		err error
	)
	switch fd.Kind() {
	case protoreflect.StringKind:
		if !utf8.ValidString(text) {
			err = domain.ErrTextInvalid
		}
		v = text
	case protoreflect.BoolKind:
		v, err = strconv.ParseBool(text)
	case protoreflect.Uint64Kind:
		v, err = strconv.ParseUint(text, 10, 64)
	case protoreflect.Uint32Kind:
		var n uint64
		n, err = strconv.ParseUint(text, 10, 32)
		v = uint32(n)
	case protoreflect.EnumKind:
		if d := fd.Enum().Values().ByName(protoreflect.Name(text)); d != nil {
			v = d.Number()
			break
		}
		var n int64
		n, err = strconv.ParseInt(text, 10, 32)
		v = protoreflect.EnumNumber(n)
	default:
		return nil
	}
	if err != nil {
		return fmt.Errorf("parameter %s has an invalid value", fd.JSONName())
	}
	m.Set(fd, protoreflect.ValueOf(v))
	return nil
}

// writeMessage answers a REST call. Zero values are left out, as the wire
// does it.
func writeMessage(w http.ResponseWriter, m proto.Message) error {
	b, err := protojson.MarshalOptions{}.MarshalAppend(make([]byte, 0, 512), m)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b) // the caller may be gone
	return nil
}

// readDeadline bounds how long a body may take to come in. Streaming calls
// set their own.
func readDeadline(w http.ResponseWriter, d time.Duration) {
	// A writer without deadlines is a test's; there is nothing to protect.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(d))
}
