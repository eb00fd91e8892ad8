package importer

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
	"github.com/muster-id/muster/eventstore"
)

// A project's secret (Firebase's signer key, a pepper) is told once a job, in a
// line of its own before the first line that needs it:
//
//	{"secrets":{"main":{"firebase":{"signerKey":"…","saltSeparator":"…","rounds":8,"memCost":14}}}}
//
// It is sealed in the job's stream. Hashes that name it, such as
// $muster-firebase$main$…, are stored with a reference that names the job too:
// <job>:main. Such a line has no answer, unless it is refused.

// maxSecrets bounds a job's secrets, and maxRef a reference's length.
const (
	maxSecrets = 1000
	maxRef     = 23
)

var (
	errSecrets     = lineError("secrets must be an object of references, each with firebase or pepper")
	errSecretRef   = lineError("a secret's reference must be 1 to 23 letters, digits, dots, dashes or underscores")
	errSecretOther = lineError("the job has another secret under this reference")
	errSecretMany  = lineError("the job has too many secrets")
)

// jobSecrets are the secrets of one job.
type jobSecrets struct {
	job string
	// verifier is where the old system checks passwords; without a URL nobody
	// does.
	verifier Verifier
	// begun says that the job's stream exists, undone that it says the job has
	// been undone.
	begun, undone bool

	mu    sync.RWMutex // guards what follows
	known password.Secrets
	line  map[string]int64 // by reference, the line that told the secret
}

// loadSecrets reads a job's stream.
func (j *Jobs) loadSecrets(ctx context.Context, job string) (*jobSecrets, error) {
	s := &jobSecrets{job: job, known: password.Secrets{}, line: map[string]int64{}}
	store := j.Importer.Store
	events, err := store.ReadStream(ctx, domain.ImportStream(job), 0)
	if err != nil {
		return nil, err
	}
	if err := store.Open(ctx, events); err != nil {
		return nil, err
	}
	for i := range events {
		s.begun = true
		e, err := domain.Decode(events[i].Type, events[i].Schema, events[i].Data, events[i].Personal)
		if err != nil {
			return nil, err
		}
		if _, ok := e.(domain.ImportUndone); ok {
			s.undone = true
		}
		if v, ok := e.(domain.ImportVerifierAdded); ok {
			s.verifier = Verifier(v)
		}
		if added, ok := e.(domain.ImportSecretAdded); ok && len(added.Secret) > 0 {
			var secret password.Secret
			if err := json.Unmarshal(added.Secret, &secret); err != nil {
				return nil, errors.New("importer: a job's secret cannot be read")
			}
			s.known[added.Ref], s.line[added.Ref] = secret, added.Line
		}
	}
	return s, nil
}

// Secrets returns the secret that a stored hash refers to (password.Format's
// Secret), ready for password.Verify. It is empty when there is none.
func (j *Jobs) Secrets(ctx context.Context, ref string) (password.Secrets, error) {
	job, inner, ok := strings.Cut(ref, ":")
	if !ok {
		return nil, nil
	}
	s, err := j.loadSecrets(ctx, job)
	if err != nil {
		return nil, err
	}
	secret, ok := s.known[inner]
	if !ok {
		return nil, nil
	}
	return password.Secrets{ref: secret}, nil
}

// recognise judges hashes as the policy of a job: one that refers to a secret
// which the job does not have can never be verified.
func (s *jobSecrets) recognise(encoded string) (password.Format, error) {
	f, err := password.Recognise(encoded)
	if err == nil && f.Secret != "" {
		s.mu.RLock()
		_, ok := s.known[f.Secret]
		s.mu.RUnlock()
		if !ok {
			return password.Format{}, &password.Error{Kind: password.ErrSecretMissing, Format: f.Name}
		}
	}
	return f, err
}

// secretPrefixes begin the encodings that refer to a secret.
var secretPrefixes = []string{"$muster-firebase$", "$muster-pepper$"}

// qualify makes the reference in a line's hash good beyond the job. ok is false
// when the secret was told behind the line only.
func (s *jobSecrets) qualify(encoded string, line int64) (qualified string, ok bool) {
	ok = true
	qualified = renameRef(encoded, func(ref string) string {
		s.mu.RLock()
		ok = s.line[ref] < line
		s.mu.RUnlock()
		return s.job + ":" + ref
	})
	return qualified, ok
}

// renameRef changes the reference of a hash that has one.
func renameRef(encoded string, rename func(ref string) string) string {
	for _, prefix := range secretPrefixes {
		if rest, ok := strings.CutPrefix(encoded, prefix); ok {
			ref, rest, _ := strings.Cut(rest, "$")
			return prefix + rename(ref) + "$" + rest
		}
	}
	return encoded
}

// control takes a line that tells secrets. A bad one is a line's error.
func (r *Run) control(ctx context.Context, n int64, line []byte) error {
	var told struct {
		Secrets password.Secrets `json:"secrets"`
	}
	// The decoder's own error would repeat what it met.
	if json.Unmarshal(line, &told) != nil || len(told.Secrets) == 0 {
		return errSecrets
	}
	s := r.secrets
	for ref, secret := range told.Secrets {
		if len(ref) > maxRef || strings.Trim(ref, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") != "" || ref == "" {
			return errSecretRef
		}
		if secret.Validate() != nil {
			return errSecrets
		}
		text, err := json.Marshal(secret)
		if err != nil {
			return errSecrets
		}
		s.mu.RLock()
		have, known := s.known[ref]
		many := len(s.known)
		s.mu.RUnlock()
		if known {
			if other, err := json.Marshal(have); err != nil || string(other) != string(text) {
				return errSecretOther
			}
			continue
		}
		if many >= maxSecrets {
			return errSecretMany
		}
		if !r.opts.DryRun {
			if err := r.event(ctx, eventstore.Any, domain.ImportSecretAdded{Ref: ref, Line: n, Secret: text}); err != nil {
				return err
			}
		}
		s.mu.Lock()
		s.known[ref], s.line[ref] = secret, n
		s.mu.Unlock()
	}
	return nil
}
