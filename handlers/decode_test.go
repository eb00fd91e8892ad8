package handlers

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	managementv1 "github.com/muster-id/muster/proto/zitadel/management/v1"
	zitadelv1 "github.com/muster-id/muster/proto/zitadel/v1"
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

// TestTheAnswerWrittenByHand is what protojson makes of it.
func TestTheAnswerWrittenByHand(t *testing.T) {
	for _, nanos := range []int{0, 1, 1_000, 10_000, 123_000_000, 123_456_000, 123_456_700, 123_456_789, 999_999_999, 100_000_000} {
		at := timestamppb.New(time.Date(2026, 11, 4, 3, 2, 1, nanos, time.UTC))
		m := &managementv1.ImportHumanUserResponse{UserId: "01M870NJ6BRD1KE9GP0AGN4797", Details: &zitadelv1.ObjectDetails{Sequence: 1<<64 - 1, CreationDate: at, ChangeDate: at, ResourceOwner: "an-Org_1"}}
		byHand, ok := appendImported(nil, m)
		if !ok {
			t.Fatal("it is not written by hand")
		}
		read := &managementv1.ImportHumanUserResponse{}
		if err := protojson.Unmarshal(byHand, read); err != nil || !proto.Equal(m, read) {
			t.Errorf("%s reads %v, %v", byHand, read, err)
		}
		theirs, err := protojson.Marshal(m)
		if err != nil || strings.ReplaceAll(string(theirs), " ", "") != string(byHand) {
			t.Errorf("%s, and by protojson %s, %v", byHand, theirs, err)
		}
	}
	at := timestamppb.Now()
	good := func() *managementv1.ImportHumanUserResponse {
		return &managementv1.ImportHumanUserResponse{UserId: "a", Details: &zitadelv1.ObjectDetails{Sequence: 1, CreationDate: at, ChangeDate: at, ResourceOwner: "b"}}
	}
	for what, change := range map[string]func(*managementv1.ImportHumanUserResponse){
		"nothing": func(m *managementv1.ImportHumanUserResponse) { proto.Reset(m) },
		"a link": func(m *managementv1.ImportHumanUserResponse) {
			m.PasswordlessRegistration = &managementv1.ImportHumanUserResponse_PasswordlessRegistration{}
		},
		"no sequence":              func(m *managementv1.ImportHumanUserResponse) { m.Details.Sequence = 0 },
		"no date":                  func(m *managementv1.ImportHumanUserResponse) { m.Details.ChangeDate = nil },
		"no date of creation":      func(m *managementv1.ImportHumanUserResponse) { m.Details.CreationDate = nil },
		"an id with a quote":       func(m *managementv1.ImportHumanUserResponse) { m.UserId = `a"b` },
		"an organisation with a ü": func(m *managementv1.ImportHumanUserResponse) { m.Details.ResourceOwner = "ü" },
		"no organisation":          func(m *managementv1.ImportHumanUserResponse) { m.Details.ResourceOwner = "" },
	} {
		m := good()
		change(m)
		if b, ok := appendImported(nil, m); ok {
			t.Errorf("%s is written by hand: %s", what, b)
		}
	}
}

// TestExpiresIsNow: what answers share is renewed each second.
func TestExpiresIsNow(t *testing.T) {
	var x expiry
	at := time.Date(2026, 11, 4, 3, 2, 1, 999_000_000, time.FixedZone("", 3600))
	for _, c := range []struct {
		after time.Duration
		want  string
	}{{0, "Wed, 04 Nov 2026 02:02:01 GMT"}, {0, "Wed, 04 Nov 2026 02:02:01 GMT"}, {time.Millisecond, "Wed, 04 Nov 2026 02:02:02 GMT"}, {0, "Wed, 04 Nov 2026 02:02:01 GMT"}} {
		if got := x.at(at.Add(c.after)); len(got) != 1 || got[0] != c.want {
			t.Errorf("%v", got)
		}
	}
}
