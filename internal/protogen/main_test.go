package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestGeneratedCodeIsUpToDate generates everything again, in memory, and
// compares it with what is committed.
func TestGeneratedCodeIsUpToDate(t *testing.T) {
	if err := run(t.Context(), true); err != nil {
		t.Fatal(err)
	}
}

// TestCheckNoticesAChange shows that the check above can fail: a message more
// in a copy of the sources changes what is generated.
func TestCheckNoticesAChange(t *testing.T) {
	root, err := moduleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, "proto"))); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "zitadel/v1/message.proto")
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(source, "\nmessage Another {}\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	changed, err := Generate(t.Context(), root, dir)
	if err != nil {
		t.Fatal(err)
	}
	committed, err := os.ReadFile(filepath.Join(root, "proto/zitadel/v1/message.pb.go"))
	if err != nil {
		t.Fatal(err)
	}
	if string(changed["zitadel/v1/message.pb.go"]) == string(committed) {
		t.Error("a message more in the source left the generated file as it was")
	}
}
