package handlers_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/muster-id/muster/handlers"
	managementv1 "github.com/muster-id/muster/proto/zitadel/management/v1"
)

// TestTheStraightWayIsTheLibrarys makes each call twice: as nearly every client
// does, which is served in a straight line, and with a header that leaves it to
// the RPC library. Status, message, details, names of headers and the kind of
// answer are the same.
func TestTheStraightWayIsTheLibrarys(t *testing.T) {
	t.Parallel()
	s := start(t, func(d *handlers.Deps) { d.MaxBody = 10_000 })
	large := start(t, nil)
	message := func(t *testing.T, changes map[string]string, padding int) []byte {
		t.Helper()
		req := &managementv1.ImportHumanUserRequest{}
		fromJSON(t, body(changes), req)
		if padding > 0 {
			req.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 99, protowire.BytesType), make([]byte, padding)))
		}
		m, err := proto.Marshal(req)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	one := func(changes map[string]string) func(*testing.T) []byte {
		return func(t *testing.T) []byte { return framed(message(t, changes, 0)) }
	}
	raw := func(b string) func(*testing.T) []byte { return func(*testing.T) []byte { return []byte(b) } }
	type seen struct {
		status, details string
		answer          bool
		headers         string
	}
	call := func(t *testing.T, s *system, content io.Reader, headers []string) seen {
		t.Helper()
		req, err := http.NewRequest(http.MethodPost, s.url+importProcedure, content)
		if err != nil {
			t.Fatal(err)
		}
		setHeaders(req.Header, append([]string{"Content-Type", "application/grpc", "TE", "trailers"}, headers...))
		res, err := s.h2.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("%d, %v", res.StatusCode, err)
		}
		all := maps.Clone(res.Header)
		maps.Copy(all, res.Trailer)
		out := seen{status: all.Get("Grpc-Status") + " " + all.Get("Grpc-Message"), details: all.Get("Grpc-Status-Details-Bin"), answer: len(b) > 0}
		if out.answer {
			answer := &managementv1.ImportHumanUserResponse{}
			if b[0] != 0 || int(binary.BigEndian.Uint32(b[1:])) != len(b)-5 || proto.Unmarshal(b[5:], answer) != nil || answer.GetUserId() == "" || answer.GetDetails().GetSequence() == 0 {
				t.Errorf("answer %q", b)
			}
		}
		for _, name := range []string{"Trailer", "Content-Length", "Grpc-Message", "Grpc-Status-Details-Bin"} { // ways to say the same; judged above
			delete(all, name)
		}
		out.headers = strings.Join(slices.Sorted(maps.Keys(all)), " ") + "; " + all.Get("Content-Type") + " " + all.Get("Grpc-Accept-Encoding")
		return out
	}
	for _, c := range []struct {
		name    string
		content func(*testing.T) []byte
		headers []string
		s       *system
		want    string // how the status begins
	}{
		{"good", one(nil), nil, s, "0 "},
		{"good, of the other content type", one(nil), []string{"Content-Type", "application/grpc+proto"}, s, "0 "},
		{"good, with time enough", one(nil), []string{"Grpc-Timeout", "30S"}, s, "0 "},
		{"good, with time enough in milliseconds", one(nil), []string{"Grpc-Timeout", "30000m"}, s, "0 "},
		{"no time", one(nil), []string{"Grpc-Timeout", "1n"}, s, "4 "},
		{"a time that is none", one(nil), []string{"Grpc-Timeout", "soon"}, s, "3 "},
		{"good, with more time than there is", one(nil), []string{"Grpc-Timeout", "99999999H"}, s, "0 "},
		{"refused by the edge", one(with("userName", "")), nil, s, "3 invalid ImportHumanUserRequest.UserName"},
		{"refused by the command, in French", one(with("userName", `" "`)), []string{"Accept-Language", "fr"}, s, "3 Le nom"},
		{"a text to be escaped", one(phone("+")), []string{"Accept-Language", "es"}, s, "3 El n%C3%BAmero"},
		{"nobody", one(nil), []string{"Authorization", ""}, s, "16 auth header missing"},
		{"no such organisation", one(nil), []string{"x-zitadel-orgid", "nowhere"}, s, "7 "},
		{"an idempotency key that is none", one(nil), []string{"Idempotency-Key", strings.Repeat("k", 256)}, s, "3 "},
		{"an empty message", raw("\x00\x00\x00\x00\x00"), nil, s, "3 invalid ImportHumanUserRequest.UserName"},
		{"nothing", raw(""), nil, s, ""},
		{"half a frame", raw("\x00\x00\x00"), nil, s, ""},
		{"cut off", raw("\x00\x00\x00\x00\x09abc"), nil, s, ""},
		{"more than it says", raw("\x00\x00\x00\x00\x00abc"), nil, s, ""},
		{"cut off where it could be read", raw("\x00\x00\x00\x00\x09\x0a\x01a"), nil, s, ""},
		{"more than it says, all of which could be read", raw("\x00\x00\x00\x00\x00\x0a\x01a"), nil, s, ""},
		{"two messages", raw("\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), nil, s, ""},
		{"compressed, it says", raw("\x01\x00\x00\x00\x00"), nil, s, ""},
		{"a flag that is none", raw("\x02\x00\x00\x00\x00"), nil, s, ""},
		{"no protobuf", raw("\x00\x00\x00\x00\x01\xff"), nil, s, "3 "},
		{"not UTF-8", raw("\x00\x00\x00\x00\x03\x0a\x01\xff"), nil, s, "3 "},
		{"larger than is allowed", func(t *testing.T) []byte { return framed(message(t, nil, 12_000)) }, nil, s, "8 "},
		{"larger than is kept", func(t *testing.T) []byte { return framed(message(t, nil, 20_000)) }, nil, large, "0 "},
		{"larger than is allowed anywhere", func(t *testing.T) []byte { return framed(message(t, nil, 5<<20)) }, nil, large, "8 "},
	} {
		straight := call(t, c.s, bytes.NewReader(c.content(t)), c.headers)
		library := call(t, c.s, bytes.NewReader(c.content(t)), append([]string{"Grpc-Encoding", "identity"}, c.headers...))
		if straight != library || !strings.HasPrefix(straight.status, c.want) {
			t.Errorf("%s, want %q:\nstraight %+v\nlibrary  %+v", c.name, c.want, straight, library)
		}
	}
	// A message that does not come.
	hasty := start(t, func(d *handlers.Deps) { d.Timeout = 200 * time.Millisecond })
	never := func(headers ...string) seen {
		r, w := io.Pipe()
		defer w.Close()
		go func() { _, _ = w.Write(framed([]byte("abc"))[:6]) }()
		return call(t, hasty, r, headers)
	}
	if straight, library := never(), never("Grpc-Encoding", "identity"); straight != library || strings.HasPrefix(straight.status, "0 ") {
		t.Errorf("a message that does not come:\nstraight %+v\nlibrary  %+v", straight, library)
	}
	// An answer that may be large is the library's, which compresses it.
	for range 60 {
		large.add(t, nil)
	}
	req, err := http.NewRequest(http.MethodPost, large.url+"/zitadel.management.v1.ManagementService/ListUsers", bytes.NewReader(framed(nil)))
	if err != nil {
		t.Fatal(err)
	}
	setHeaders(req.Header, []string{"Content-Type", "application/grpc", "Grpc-Accept-Encoding", "gzip", "Muster-Min-Position", fmt.Sprint(large.head(t))})
	res, err := large.h2.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || len(b) < 5 || b[0] != 1 || res.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("a list: %d bytes, flag %v, %v, %v", len(b), b[:min(1, len(b))], res.Trailer, err)
	}
}
