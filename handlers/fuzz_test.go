package handlers_test

import (
	"bytes"
	"net/http"
	"testing"

	"google.golang.org/protobuf/proto"

	managementv1 "github.com/muster-id/muster/proto/zitadel/management/v1"
)

// The fuzzers send whatever they come up with to a real service, and accept
// any answer but a 500 or none.

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
	})
}
