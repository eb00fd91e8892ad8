package handlers

import (
	"encoding"
	"encoding/json"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/muster-id/muster/handlers/access"
)

// endpoint is a route that is not a method of the wire's, with what
// /openapi.json says of it. Whatever is served beside the methods and the pages
// is registered as one, so the document cannot lack it.
type endpoint struct {
	verb string
	// path is echo's form: /v1/imports/:id.
	path    string
	summary string
	// permission is what the caller has to hold; "" lets everybody in.
	permission access.Permission
	parameters []parameter
	// body is a value of the type that the body is read into; nil for none.
	body any
	// answer is a value of the answer's type, or media types.
	answer any
}

// media are the media types of an answer that is no JSON object.
type media []string

// parameter is an input beside the message.
type parameter struct {
	name, in, description string
	schema                object
}

// listed is what a list answers.
type listed[T any] struct {
	Result []T `json:"result"`
}

var (
	aText  = object{"type": "string"}
	aFlag  = object{"type": "boolean"}
	aCount = object{"type": "integer", "minimum": 1, "maximum": maxLimit, "default": defaultLimit}

	orgParameter = parameter{"x-zitadel-orgid", "header", "The organisation of the call; absent: the token's own.", aText}
	minParameter = parameter{minPositionHeader, "header", "Wait, for a bounded time, until the answer is at least as new as this position.", aText}
	keyParameter = parameter{idempotencyHeader, "header", "Makes the call repeatable: the same key with the same request gets the first answer again.", aText}
	limParameter = parameter{"limit", "query", "The most entries to answer with.", aCount}
)

// serve registers a route and remembers it for the document.
func (s *server) serve(p endpoint, h echo.HandlerFunc) {
	s.echo.Add(p.verb, p.path, h)
	s.endpoints = append(s.endpoints, p)
}

// serveOwn serves a call that needs a permission and has no message of the
// wire's. It answers with what fn returns, in JSON, unless fn is told that it
// answers by itself.
func (s *server) serveOwn(p endpoint, fn func(echo.Context, *call) error) {
	s.serve(p, s.plain(p.permission, fn))
}

// answering is the way of a call that answers with one JSON object.
func answering(fn func(echo.Context, *call) (any, error), mapped func(error) error) func(echo.Context, *call) error {
	return func(e echo.Context, c *call) error {
		v, err := fn(e, c)
		if err != nil {
			return mapped(err)
		}
		return writeJSON(e.Response(), v)
	}
}

var echoVariable = regexp.MustCompile(`:([A-Za-z]+)`)

// documentPath turns echo's form of a path into the document's.
func documentPath(path string) string { return echoVariable.ReplaceAllString(path, "{$1}") }

func (p parameter) object() object {
	return object{"name": p.name, "in": p.in, "description": p.description, "required": p.in == "path", "schema": p.schema}
}

// object describes the route.
func (p endpoint) object() object {
	failure := object{"description": "Failure", "content": object{"application/json": object{"schema": object{"$ref": "#/components/schemas/Error"}}}}
	content := object{}
	switch a := p.answer.(type) {
	case media:
		for _, kind := range a {
			content[kind] = object{}
		}
	default:
		content["application/json"] = object{"schema": schemaOf(reflect.TypeOf(a))}
	}
	op := object{
		"operationId": strings.ToLower(p.verb) + strings.NewReplacer("/", "_", ":", "", ".", "_").Replace(p.path),
		"summary":     p.summary,
		"responses":   object{"200": object{"description": "OK", "content": content}, "default": failure},
	}
	parameters := []object{}
	for _, v := range echoVariable.FindAllStringSubmatch(p.path, -1) {
		parameters = append(parameters, parameter{name: v[1], in: "path", schema: aText}.object())
	}
	for _, v := range p.parameters {
		parameters = append(parameters, v.object())
	}
	if p.permission == "" {
		op["tags"], op["security"] = []string{"service"}, []object{}
	} else {
		op["tags"], op["description"] = []string{"muster.v1"}, "Needs "+string(p.permission)+"."
		parameters = append(parameters, orgParameter.object())
	}
	op["parameters"] = parameters
	if p.body != nil {
		op["requestBody"] = object{"content": object{"application/json": object{"schema": schemaOf(reflect.TypeOf(p.body))}}}
	}
	return op
}

var (
	timeType = reflect.TypeFor[time.Time]()
	rawType  = reflect.TypeFor[json.RawMessage]()
	textType = reflect.TypeFor[encoding.TextMarshaler]()
)

// schemaOf describes the JSON that a Go type becomes.
func schemaOf(t reflect.Type) object {
	switch {
	case t == nil || t == rawType:
		return object{}
	case t == timeType:
		return object{"type": "string", "format": "date-time"}
	case t.Implements(textType):
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem())
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number"}
	case reflect.Slice, reflect.Array:
		return object{"type": "array", "items": schemaOf(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": schemaOf(t.Elem())}
	case reflect.Struct:
		properties := object{}
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case !f.IsExported() || name == "-":
			case name == "":
				properties[f.Name] = schemaOf(f.Type)
			default:
				properties[name] = schemaOf(f.Type)
			}
		}
		return object{"type": "object", "properties": properties}
	case reflect.Interface:
		return object{}
	default:
		return object{"type": "integer"}
	}
}
