package handlers

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	managementv1 "github.com/muster-id/muster/proto/zitadel/management/v1"
)

// broken is a body that ends in an error.
type broken struct {
	io.Reader
	err error
}

func (b broken) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = b.err
	}
	return n, err
}

// TestTheShortWayIsTheLongOne: what is read into one message at once is read as
// a value that is looked for first: the same message or the same error.
func TestTheShortWayIsTheLongOne(t *testing.T) {
	for _, body := range []string{
		"", " ", "\n\n", "{}", " {} ", "{} x", "{}{}", "{", "}", "[]", "null", "nul", `"a"`, "1", "\ufeff{}", "{\"userName\":\"\xff\"}", "\x00", "{}\x00",
		`{"userName":"a","profile":{"firstName":"b"},"email":{"email":"c"}}`, `{"userName":"a"} trailing`, `{"userName":"a","userName":"b"}`, `{"user_name":"a","userName":"b"}`,
		`{"userName":1}`, `{"userName":null}`, `{"x":{"y":[1,2,{"z":1e999}]}}`, `{"x":01}`, `{"x":-}`, `{"x":1.}`, `{"x":"\u12"}`, `{"x":"\ud800"}`, `{"x":"` + "\t" + `"}`, `{"x":tru}`, `{,}`, `{"a":1,}`,
		`{"profile":{"gender":"GENDER_X"}}`, `{"profile":{"gender":1e0}}`, `{"@type":"x"}`, `{"x":` + strings.Repeat("[", 20_000), `{"x":` + strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000) + `}`,
		`{"x":` + strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001) + `}`, `{"password":"` + strings.Repeat("x", pooledBody) + `"}`, "{\n\"userName\":\n 1}", "  \n {\"userName\": 1}",
	} {
		for _, end := range []error{nil, io.ErrUnexpectedEOF, &http.MaxBytesError{Limit: 1}} {
			sameDecoding(t, []byte(body), end)
		}
	}
}

func sameDecoding(t *testing.T, body []byte, end error) {
	t.Helper()
	long, short := &managementv1.ImportHumanUserRequest{}, &managementv1.ImportHumanUserRequest{}
	reader := func() io.Reader {
		if end == nil {
			return bytes.NewReader(body)
		}
		return broken{bytes.NewReader(body), end}
	}
	length := int64(len(body))
	if end != nil {
		length++ // something that never comes
	}
	longErr, shortErr := decodeValue(reader(), long), decodeJSON(reader(), length, short)
	if (longErr == nil) != (shortErr == nil) || longErr != nil && longErr.Error() != shortErr.Error() {
		t.Errorf("%.80q, %v: %v, and at once %v", body, end, longErr, shortErr)
	}
	if longErr == nil && !proto.Equal(long, short) {
		t.Errorf("%.80q: %v, and at once %v", body, long, short)
	}
}

// FuzzTheShortWay does the same with bodies that nobody thought of.
func FuzzTheShortWay(f *testing.F) {
	f.Add([]byte(`{"userName":"a","profile":{"firstName":"b","gender":2},"idps":[{"configId":"x"}],"unknown":[1,{"a":null}]} `))
	f.Add([]byte("{\"userName\":\"\\ud83d\\ude00\xff\"}"))
	f.Fuzz(func(t *testing.T, body []byte) { sameDecoding(t, body, nil) })
}

// TestABufferIsNobodysTwice: a message keeps nothing of the buffer that it was
// read from.
func TestABufferIsNobodysTwice(t *testing.T) {
	read := func(body string) *managementv1.ImportHumanUserRequest {
		m := &managementv1.ImportHumanUserRequest{}
		if err := decodeJSON(strings.NewReader(body), int64(len(body)), m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	first := read(`{"userName":"first","password":"secret"}`)
	for range 10 {
		read(`{"userName":"other","password":"xxxxxx"}`)
	}
	if first.GetUserName() != "first" || first.GetPassword() != "secret" {
		t.Errorf("%v", first)
	}
	b := bodies.Get().(*[]byte)
	if all := (*b)[:cap(*b)]; bytes.Contains(all, []byte("secret")) || bytes.Contains(all, []byte("xxxxxx")) {
		t.Error("a password stays behind in the buffer")
	}
}
