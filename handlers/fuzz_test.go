package handlers_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	managementv1 "github.com/muster-id/muster/proto/zitadel/management/v1"
)

// The fuzzers send whatever they come up with to a real service, and accept
// any answer but a 500, gRPC's internal, or none.

func FuzzImportJSON(f *testing.F) {
	s := start(f, nil)
	for _, c := range importCases() {
		f.Add([]byte(c.body))
	}
	f.Add([]byte("\xff\xfe{\"userName\":\"\xff\"}"))
	f.Add([]byte(`{"userName":"a\u0000b","profile":{"firstName":"\u0000","lastName":"b"},"email":{"email":"a@b.c"}}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		a := s.rest(t, "POST", importPath, string(content))
		if a.HTTP >= 500 {
			t.Errorf("%d: %s", a.HTTP, a.Body)
		}
	})
}

func FuzzImportProto(f *testing.F) {
	s := start(f, nil)
	for _, c := range importCases() {
		if !c.json {
			req := &managementv1.ImportHumanUserRequest{}
			fromJSON(f, c.body, req)
			b, err := proto.Marshal(req)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		req, err := http.NewRequest(http.MethodPost, s.url+importProcedure, bytes.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/proto")
		req.Header.Set("Authorization", "Bearer "+adminToken)
		res, err := s.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode >= 500 {
			t.Errorf("status %d", res.StatusCode)
		}
		// The same as gRPC's message, and as all that comes over the connection.
		for _, frames := range [][]byte{framed(content), content} {
			if req, err = http.NewRequest(http.MethodPost, s.url+importProcedure, bytes.NewReader(frames)); err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/grpc")
			req.Header.Set("Authorization", "Bearer "+adminToken)
			if res, err = s.h2.Do(req); err != nil {
				t.Fatal(err)
			}
			_, err = io.Copy(io.Discard, res.Body)
			res.Body.Close()
			status, message := res.Trailer.Get("Grpc-Status"), res.Trailer.Get("Grpc-Message")
			internal := status == "13" && !strings.HasPrefix(message, "protocol error") // what frames that are none get
			if err != nil || res.StatusCode != http.StatusOK || status == "" || status == "2" || internal {
				t.Errorf("over gRPC: HTTP %d, status %q %q, %v", res.StatusCode, status, message, err)
			}
		}
	})
}
