// Command protogen turns the repository's .proto files into Go: messages,
// Connect clients and services, validation.
//
// It needs no protoc and no network beyond the Go module proxy: the files are
// compiled in this process, and the code generators are the tools that go.mod
// pins. Run it from anywhere inside the module:
//
//	go run ./internal/protogen
//
// Generating twice gives the same bytes; -check says whether the committed
// files are what would be generated, and changes nothing.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"

	// What our files import from elsewhere comes as descriptors that are
	// linked into this program.
	_ "github.com/envoyproxy/protoc-gen-validate/validate"
	_ "google.golang.org/genproto/googleapis/api/annotations"
)

// plugins are the generators, by their names as tools of go.mod, with their
// parameters.
var plugins = []struct{ tool, parameter string }{
	{"protoc-gen-go", "paths=source_relative"},
	{"protoc-gen-connect-go", "paths=source_relative"},
	{"protoc-gen-validate", "paths=source_relative,lang=go"},
}

func main() {
	check := flag.Bool("check", false, "compare with the committed files instead of writing")
	flag.Parse()
	if err := run(context.Background(), *check); err != nil {
		fmt.Fprintln(os.Stderr, "protogen:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, check bool) error {
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	dir := filepath.Join(root, "proto")
	want, err := Generate(ctx, root, dir)
	if err != nil {
		return err
	}
	have, err := generatedFiles(dir)
	if err != nil {
		return err
	}
	var stale []string
	for name, content := range want {
		path := filepath.Join(dir, name)
		old, err := os.ReadFile(path)
		if err == nil && bytes.Equal(old, content) {
			continue
		}
		if check {
			stale = append(stale, name)
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	for _, name := range have {
		if _, ok := want[name]; ok {
			continue
		}
		if check {
			stale = append(stale, name)
			continue
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	if len(stale) > 0 {
		slices.Sort(stale)
		return fmt.Errorf("not up to date, run `make generate`: %s", strings.Join(stale, ", "))
	}
	return nil
}

// Generate compiles every .proto file below dir and returns the generated
// files by their path relative to dir. The tools are run in root, whose go.mod
// pins them.
func Generate(ctx context.Context, root, dir string) (map[string][]byte, error) {
	sources, err := protoFiles(dir)
	if err != nil {
		return nil, err
	}
	compiler := protocompile.Compiler{
		Resolver: protocompile.WithStandardImports(protocompile.CompositeResolver{
			&protocompile.SourceResolver{ImportPaths: []string{dir}},
			protocompile.ResolverFunc(linked),
		}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	compiled, err := compiler.Compile(ctx, sources...)
	if err != nil {
		return nil, err
	}
	req := &pluginpb.CodeGeneratorRequest{FileToGenerate: sources}
	seen := map[string]bool{}
	for _, f := range compiled {
		addWithImports(req, seen, f)
	}
	out := map[string][]byte{}
	for _, p := range plugins {
		req.Parameter = proto.String(p.parameter)
		res, err := runPlugin(ctx, root, p.tool, req)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.tool, err)
		}
		for _, f := range res.GetFile() {
			out[f.GetName()] = []byte(f.GetContent())
		}
	}
	return out, nil
}

// linked resolves an import from the descriptors linked into this program.
func linked(path string) (protocompile.SearchResult, error) {
	d, err := protoregistry.GlobalFiles.FindFileByPath(path)
	if err != nil {
		return protocompile.SearchResult{}, err
	}
	return protocompile.SearchResult{Desc: d}, nil
}

// addWithImports appends f behind everything that it imports, the order that
// generators require.
func addWithImports(req *pluginpb.CodeGeneratorRequest, seen map[string]bool, f protoreflect.FileDescriptor) {
	if seen[f.Path()] {
		return
	}
	seen[f.Path()] = true
	for i := range f.Imports().Len() {
		addWithImports(req, seen, f.Imports().Get(i).FileDescriptor)
	}
	d := protodesc.ToFileDescriptorProto(f)
	// Options made by the compiler hold extensions as dynamic messages;
	// generators expect what comes off a wire.
	if b, err := (proto.MarshalOptions{Deterministic: true}).Marshal(d); err == nil {
		clean := &descriptorpb.FileDescriptorProto{}
		if proto.Unmarshal(b, clean) == nil {
			d = clean
		}
	}
	req.ProtoFile = append(req.ProtoFile, d)
}

func runPlugin(ctx context.Context, root, tool string, req *pluginpb.CodeGeneratorRequest) (*pluginpb.CodeGeneratorResponse, error) {
	in, err := (proto.MarshalOptions{Deterministic: true}).Marshal(req)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "go", "tool", tool)
	cmd.Dir = root
	cmd.Stdin = bytes.NewReader(in)
	cmd.Stderr = os.Stderr
	b, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	res := &pluginpb.CodeGeneratorResponse{}
	if err := proto.Unmarshal(b, res); err != nil {
		return nil, err
	}
	if res.Error != nil {
		return nil, fmt.Errorf("%s", res.GetError())
	}
	return res, nil
}

func protoFiles(dir string) ([]string, error) { return files(dir, ".proto") }
func generatedFiles(dir string) ([]string, error) {
	return files(dir, ".go", ".pb.go", ".pb.validate.go", ".connect.go")
}

// files lists the files below dir whose names end in ext and, where more
// endings are given, in one of those; relative to dir, sorted, with slashes.
func files(dir, ext string, endings ...string) ([]string, error) {
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ext) {
			return err
		}
		ours := func(e string) bool { return strings.HasSuffix(path, e) }
		if len(endings) > 0 && !slices.ContainsFunc(endings, ours) {
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		out = append(out, filepath.ToSlash(rel))
		return err
	})
	slices.Sort(out)
	return out, err
}

func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", err
	}
	mod := strings.TrimSpace(string(out))
	if mod == "" || mod == os.DevNull {
		return "", fmt.Errorf("not inside the module")
	}
	return filepath.Dir(mod), nil
}
