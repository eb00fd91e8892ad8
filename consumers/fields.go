package consumers

import (
	"encoding/base64"
	"reflect"
	"strconv"
	"sync"
	"time"
	"unicode"

	"github.com/muster-id/muster/domain"
)

// credentials are the fields that never leave the process in a document,
// opened or not: whoever needs one asks EventOf.
var credentials = map[string]bool{
	"Secret": true, "Authorization": true, "URL": true, "Hash": true, "Credential": true, "CredentialID": true,
}

// field is how one field of an event is written.
type field struct {
	index []int
	key   string // `"displayName":`
}

// plans holds the []field of each struct type that was met, found by
// reflection once: encoding/json would write the credentials too.
var plans sync.Map

func planOf(t reflect.Type) []field {
	if p, ok := plans.Load(t); ok {
		return p.([]field) //nolint:errcheck // nothing else is put there
	}
	var fields []field
	for _, f := range reflect.VisibleFields(t) {
		if f.Anonymous || !f.IsExported() || credentials[f.Name] {
			continue
		}
		fields = append(fields, field{index: f.Index, key: `"` + camel(f.Name) + `":`})
	}
	plans.Store(t, fields)
	return fields
}

// camel turns a Go name into a JSON key: "UserID" → "userId", "IDPConfigs" →
// "idpConfigs". In a run of capitals all but the first are lowered, and the
// last one too unless it begins a word.
func camel(name string) string {
	r := []rune(name)
	out := make([]rune, len(r))
	for i, c := range r {
		beginsWord := i > 0 && (!unicode.IsUpper(r[i-1]) || i+1 < len(r) && unicode.IsLower(r[i+1]))
		if !beginsWord {
			c = unicode.ToLower(c)
		}
		out[i] = c
	}
	return string(out)
}

func appendFields(b []byte, e domain.Event) []byte {
	return appendStruct(b, reflect.ValueOf(e))
}

func appendStruct(b []byte, v reflect.Value) []byte {
	b = append(b, '{')
	first := true
	for _, f := range planOf(v.Type()) {
		fv := v.FieldByIndex(f.index)
		if fv.IsZero() {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, f.key...)
		b = appendValue(b, fv)
	}
	return append(b, '}')
}

var (
	timeType     = reflect.TypeFor[time.Time]()
	durationType = reflect.TypeFor[time.Duration]()
)

func appendValue(b []byte, v reflect.Value) []byte {
	switch v.Type() {
	case timeType:
		b = append(b, '"')
		b = v.Interface().(time.Time).UTC().AppendFormat(b, time.RFC3339Nano) //nolint:errcheck // made above, of this type
		return append(b, '"')
	case durationType:
		b = append(b, '"')
		b = strconv.AppendFloat(b, time.Duration(v.Int()).Seconds(), 'f', -1, 64)
		return append(b, `s"`...)
	}
	switch v.Kind() {
	case reflect.String:
		return appendString(b, v.String())
	case reflect.Bool:
		return strconv.AppendBool(b, v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.AppendInt(b, v.Int(), 10)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return strconv.AppendUint(b, v.Uint(), 10)
	case reflect.Struct:
		return appendStruct(b, v)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			b = append(b, '"')
			b = base64.StdEncoding.AppendEncode(b, v.Bytes())
			return append(b, '"')
		}
		b = append(b, '[')
		for i := range v.Len() {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendValue(b, v.Index(i))
		}
		return append(b, ']')
	}
	panic("consumers: an event has a field of kind " + v.Kind().String()) // a test encodes every event
}
