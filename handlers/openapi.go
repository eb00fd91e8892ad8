package handlers

import (
	_ "embed"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	pgv "github.com/envoyproxy/protoc-gen-validate/validate"
	"github.com/labstack/echo/v4"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

//go:embed openapi.html
var openAPIPage []byte

//go:embed openapi.js
var openAPIScript []byte

// serveOpenAPI describes the REST routes, from the same descriptors and
// endpoints that they are served by, and shows the description as a page that
// needs nobody else.
func (s *server) serveOpenAPI() {
	var doc []byte
	serve := func(path, summary, kind string, content *[]byte) {
		name, _, _ := strings.Cut(kind, ";")
		s.serve(endpoint{verb: http.MethodGet, path: path, summary: summary, answer: media{name}},
			func(e echo.Context) error { return e.Blob(http.StatusOK, kind, *content) })
	}
	serve("/openapi.json", "This document", "application/json", &doc)
	serve("/openapi", "This document as a page", "text/html; charset=utf-8", &openAPIPage)
	serve("/openapi.js", "The page's script", "text/javascript; charset=utf-8", &openAPIScript)
	var err error
	if doc, err = json.Marshal(s.openAPI()); err != nil {
		panic("handlers: describing the routes: " + err.Error()) // made of maps and texts only
	}
}

type object = map[string]any

func (s *server) openAPI() object {
	d := describer{schemas: object{}}
	paths := object{}
	add := func(path, verb string, operation object) {
		item, _ := paths[path].(object)
		if item == nil {
			item = object{}
			paths[path] = item
		}
		item[strings.ToLower(verb)] = operation
	}
	for _, m := range s.methods {
		r, ok := routeOf(m)
		if !ok {
			continue
		}
		path := r.path
		for _, p := range r.params {
			path = strings.Replace(path, ":"+p, "{"+p+"}", 1)
		}
		op := d.operation(m, r, s.extras[m.FullName()])
		if isBulkPath(r.path) {
			withLines(op)
		}
		add(path, r.verb, op)
	}
	for _, p := range s.endpoints {
		add(documentPath(p.path), p.verb, p.object())
	}
	d.schemas["Error"] = object{
		"type": "object", "description": "What every failed call answers: google.rpc.Status.", "required": []string{"code", "message"},
		"properties": object{
			"code":    object{"type": "integer", "description": "The gRPC status code."},
			"message": object{"type": "string"},
			"details": object{"type": "array", "items": object{"type": "object", "properties": object{
				"@type": object{"type": "string"}, "id": object{"type": "string"}, "message": object{"type": "string"}}}},
		},
	}
	return object{
		"openapi": "3.1.0",
		"info": object{"title": "Muster", "version": "1", "license": object{"name": "Apache-2.0", "identifier": "Apache-2.0"},
			"description": "The same methods are served over gRPC, gRPC-Web and Connect on the same port; reflection is on."},
		"security":   []object{{"token": []string{}}},
		"paths":      paths,
		"components": object{"schemas": d.schemas, "securitySchemes": object{"token": object{"type": "http", "scheme": "bearer"}}},
	}
}

// describer collects the schemas of the messages that it has met.
type describer struct{ schemas object }

// withLines adds what the import's URL does with lines of JSON.
func withLines(op object) {
	lines := object{"description": "A person a line, and an answer a line, while the lines still arrive."}
	op["requestBody"].(object)["content"].(object)["application/x-ndjson"] = lines               //nolint:errcheck // made above, of this type
	op["responses"].(object)["200"].(object)["content"].(object)["application/x-ndjson"] = lines //nolint:errcheck // made above, of this type
}

func (d *describer) operation(m protoreflect.MethodDescriptor, r route, extras []parameter) object {
	service := string(m.Parent().FullName())
	op := object{
		"operationId": strings.ReplaceAll(string(m.FullName()), ".", "_"),
		"summary":     string(m.Name()),
		"tags":        []string{service},
		"responses": object{
			"200":     object{"description": "OK", "content": object{"application/json": object{"schema": d.reference(m.Output())}}},
			"default": object{"description": "Failure", "content": object{"application/json": object{"schema": object{"$ref": "#/components/schemas/Error"}}}},
		},
	}
	parameters := []object{}
	fields := m.Input().Fields()
	for _, p := range r.params {
		parameters = append(parameters, object{"name": p, "in": "path", "required": true, "schema": d.field(fields.ByName(protoreflect.Name(p)))})
	}
	if strings.HasPrefix(service, "zitadel.") {
		parameters = append(parameters, orgParameter.object())
	}
	if r.body {
		op["requestBody"] = object{"required": true, "content": object{"application/json": object{"schema": d.reference(m.Input())}}}
	} else {
		for i := range fields.Len() {
			f := fields.Get(i)
			if f.Message() == nil && !f.IsList() && !slices.Contains(r.params, string(f.Name())) {
				parameters = append(parameters, object{"name": f.JSONName(), "in": "query", "schema": d.field(f)})
			}
		}
	}
	for _, p := range extras {
		parameters = append(parameters, p.object())
	}
	op["parameters"] = parameters
	return op
}

func (d *describer) reference(m protoreflect.MessageDescriptor) object {
	switch m.FullName() {
	case "google.protobuf.Timestamp":
		return object{"type": "string", "format": "date-time"}
	case "google.protobuf.Duration":
		return object{"type": "string", "pattern": `^-?[0-9]+(\.[0-9]{1,9})?s$`}
	}
	name := string(m.FullName())
	if _, ok := d.schemas[name]; !ok {
		schema := object{"type": "object"}
		d.schemas[name] = schema // before its fields: messages may hold themselves
		properties := object{}
		var required []string
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			properties[f.JSONName()] = d.field(f)
			if r := rulesOf(f); r.GetMessage().GetRequired() || r.GetString_().GetMinLen() > 0 && !f.HasOptionalKeyword() && f.ContainingOneof() == nil {
				required = append(required, f.JSONName())
			}
		}
		schema["properties"] = properties
		if len(required) > 0 {
			schema["required"] = required
		}
	}
	return object{"$ref": "#/components/schemas/" + name}
}

func rulesOf(f protoreflect.FieldDescriptor) *pgv.FieldRules {
	r, _ := proto.GetExtension(f.Options(), pgv.E_Rules).(*pgv.FieldRules)
	return r
}

func (d *describer) field(f protoreflect.FieldDescriptor) object {
	s := d.scalar(f)
	if f.IsList() {
		s = object{"type": "array", "items": s}
	}
	return s
}

func (d *describer) scalar(f protoreflect.FieldDescriptor) object {
	switch f.Kind() {
	case protoreflect.MessageKind:
		return d.reference(f.Message())
	case protoreflect.BoolKind:
		return object{"type": "boolean"}
	case protoreflect.Uint32Kind, protoreflect.Int32Kind:
		return object{"type": "integer"}
	case protoreflect.Uint64Kind, protoreflect.Int64Kind:
		return object{"type": "string", "format": "uint64", "pattern": "^[0-9]+$"}
	case protoreflect.BytesKind:
		return object{"type": "string", "contentEncoding": "base64"}
	case protoreflect.EnumKind:
		names := []string{}
		for i := range f.Enum().Values().Len() {
			names = append(names, string(f.Enum().Values().Get(i).Name()))
		}
		return object{"type": "string", "enum": names}
	default: // texts
	}
	s := object{"type": "string"}
	r := rulesOf(f).GetString_()
	if r == nil {
		return s
	}
	if r.MinLen != nil {
		s["minLength"] = r.GetMinLen()
	}
	if r.MaxLen != nil {
		s["maxLength"] = r.GetMaxLen()
	}
	if r.GetEmail() {
		s["format"] = "email"
	}
	if p := r.GetPrefix(); p != "" {
		s["pattern"] = "^\\" + p
	}
	if len(r.GetIn()) > 0 {
		s["enum"] = r.GetIn()
	}
	return s
}
