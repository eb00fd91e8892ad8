package importer

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/importer/source"
)

// Export calls each with the users of an organisation as they stand, some lines
// of the import's own stream at a time, hashes and second factors included: an
// import of the lines makes the same users. Users who have been removed are left
// out; so are passkeys and pending codes, for which the stream has no place. It
// reads the log slice by slice up to its present end, in constant memory.
//
// Secrets that hashes refer to come in lines of their own before the first user
// who needs them.
func (j *Jobs) Export(ctx context.Context, org string, each func(lines []byte) error) (users int64, err error) {
	store := j.Importer.Store
	head, err := store.Head(ctx)
	if err != nil {
		return 0, err
	}
	var lines []byte
	refs := map[string]string{} // stored reference → the export's
	flush := func(most int) error {
		if len(lines) <= most {
			return nil
		}
		err := each(lines)
		lines = lines[:0]
		return err
	}
	err = store.ReadSlices(ctx, 0, eventstore.Slices-1, head.Position, nil, func(events []eventstore.Event) error {
		kept := events[:0]
		for _, e := range events {
			if e.Org == org && e.Stream[:1] != eventstore.SystemPrefix {
				kept = append(kept, e)
			}
		}
		if err := store.Open(ctx, kept); err != nil {
			return err
		}
		for len(kept) > 0 {
			n := 1
			for n < len(kept) && kept[n].Stream == kept[0].Stream {
				n++
			}
			u := domain.NewUser(kept[0].Stream, org)
			for _, e := range kept[:n] {
				fact, err := domain.Decode(e.Type, e.Schema, e.Data, e.Personal)
				if err != nil {
					return fmt.Errorf("position %d: %w", e.Position, err)
				}
				u.Apply(fact)
			}
			kept = kept[n:]
			if !u.Exists() {
				continue
			}
			c := exported(u)
			if lines, err = j.exportSecret(ctx, lines, &c, refs); err != nil {
				return err
			}
			if lines, err = source.AppendLine(lines, c); err != nil {
				return err
			}
			users++
			if err := flush(256 << 10); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = flush(0)
	}
	return users, err
}

// exported is the command that would make a user as they are.
func exported(u *domain.User) domain.ImportHuman {
	c := domain.ImportHuman{
		UserID: u.ID, UserName: u.UserName, Profile: u.Profile, Email: domain.Email{Address: u.Email, Verified: u.EmailVerified},
		HashedPassword: u.PasswordHash, ChangeRequired: u.ChangeRequired, TOTPSecret: u.TOTPSecret,
		IDPLinks: u.IDPLinks, ExternalID: u.ExternalID, State: u.State,
	}
	if u.Phone != "" {
		c.Phone = &domain.Phone{Number: u.Phone, Verified: u.PhoneVerified}
	}
	keys := make([]string, 0, len(u.Metadata))
	for k := range u.Metadata {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		c.Metadata = append(c.Metadata, domain.Metadata{Key: k, Value: u.Metadata[k]})
	}
	return c
}

// exportSecret gives a hash's reference a name of the export's own, and tells
// the secret when it is named for the first time.
func (j *Jobs) exportSecret(ctx context.Context, lines []byte, c *domain.ImportHuman, refs map[string]string) ([]byte, error) {
	f, err := password.Recognise(c.HashedPassword)
	if err != nil || f.Secret == "" {
		return lines, nil //nolint:nilerr // it goes out as it came in
	}
	if refs[f.Secret] == "" {
		secrets, err := j.Secrets(ctx, f.Secret)
		if err != nil {
			return nil, err
		}
		secret, ok := secrets[f.Secret]
		if !ok {
			return lines, nil
		}
		name := fmt.Sprintf("s%d", len(refs)+1)
		text, err := json.Marshal(map[string]any{"secrets": map[string]any{name: secret}})
		if err != nil {
			return nil, err
		}
		refs[f.Secret] = name
		lines = append(append(lines, text...), '\n')
	}
	c.HashedPassword = renameRef(c.HashedPassword, func(string) string { return refs[f.Secret] })
	return lines, nil
}
