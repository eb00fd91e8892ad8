package source

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"

	"github.com/muster-id/muster/domain"
)

// spoolMemory is how much of an organisation's users is held in memory before
// they go to a temporary file.
const spoolMemory = 4 << 20

const (
	partLinks    Part = "userLinks"
	partMetadata Part = "userMetadata"
)

// zitadelRows reads the bulk document of ZITADEL's admin API, as its own
// converter and its export write it: {"dataOrgs":{"orgs":[{"orgId":…,
// "humanUsers":[{"userId":…,"user":{…},"state":…}], …}]},"timeout":…}.
//
// JSON has no order of members: an organisation's id, its users' links and
// their metadata may stand behind the users. So an organisation's users are
// put aside, on disk when they are many, until its end has been read.
type zitadelRows struct {
	s     jsonStream
	r     *reader
	begun bool // for the list of organisations
	n     int64
	buf   []byte

	id    string
	users *spool
	in    jsonStream // over users
	more  bool
	links *sideTable
	meta  *sideTable
}

func newZITADELRows(r *bufio.Reader, rd *reader) *zitadelRows {
	return &zitadelRows{s: jsonStream{r}, r: rd}
}

func (z *zitadelRows) org() string { return z.id }

var errNoOrgs = errors.New("the document has no dataOrgs")

// next returns the next user; between two organisations it reads one whole.
func (z *zitadelRows) next(d *doc) (int64, error) {
	if z.n == 0 && !z.begun && z.users == nil {
		if err := z.top(); err != nil {
			return 0, err
		}
	}
	for {
		if z.users != nil {
			more, err := z.in.more(z.more, ']')
			if err != nil {
				return z.n, err
			}
			if more {
				z.more = true
				z.n++
				z.buf, err = z.in.raw(z.buf[:0], maxRecord)
				if errors.Is(err, errTooLong) {
					return z.n, &rowError{err}
				}
				if err != nil {
					return z.n, err
				}
				if d.parse(z.buf) != nil {
					return z.n, &rowError{errJSON}
				}
				return z.n, nil
			}
			if err := z.leave(); err != nil {
				return z.n, err
			}
			continue
		}
		more, err := z.s.more(z.begun, ']')
		if err != nil {
			return z.n, err
		}
		if !more {
			return z.n, z.tail()
		}
		z.begun = true
		if err := z.enter(); err != nil {
			return z.n, err
		}
	}
}

// top goes down to the list of organisations.
func (z *zitadelRows) top() error {
	prefix := ""
	for _, names := range [2][]string{{"dataOrgs", "data_orgs", "dataOrgsv1", "data_orgsv1"}, {"orgs"}} {
		if err := z.s.expect('{'); err != nil {
			return err
		}
		if err := z.find(names, prefix); err != nil {
			return err
		}
		prefix = "dataOrgs."
	}
	return z.s.expect('[')
}

// find passes over members until one has one of the names.
func (z *zitadelRows) find(names []string, prefix string) error {
	for begun := false; ; begun = true {
		more, err := z.s.more(begun, '}')
		if err != nil {
			return err
		}
		if !more {
			return errNoOrgs
		}
		key, err := z.s.key()
		if err != nil {
			return err
		}
		for _, name := range names {
			if key == name {
				return nil
			}
		}
		if err := z.lose(key, prefix); err != nil {
			return err
		}
	}
}

// lose passes over a member that is not read. Of a list it counts each
// element.
func (z *zitadelRows) lose(key, prefix string) error {
	if prefix == "" && key == "timeout" {
		return z.s.skip()
	}
	path := prefix + name([]byte(key))
	c, err := z.s.peek()
	if err != nil {
		return noEOF(err)
	}
	if c != '[' {
		z.r.losses.add(path)
		return z.s.skip()
	}
	if err := z.s.expect('['); err != nil {
		return err
	}
	for begun := false; ; begun = true {
		more, err := z.s.more(begun, ']')
		if err != nil || !more {
			return err
		}
		z.r.losses.add(path + "[]")
		if err := z.s.skip(); err != nil {
			return err
		}
	}
}

// tail reads what is behind the list of organisations; the document must end
// as it should, or it was cut off.
func (z *zitadelRows) tail() error {
	for _, prefix := range []string{"dataOrgs.", ""} {
		for {
			more, err := z.s.more(true, '}')
			if err != nil {
				return err
			}
			if !more {
				break
			}
			key, err := z.s.key()
			if err != nil {
				return err
			}
			if err := z.lose(key, prefix); err != nil {
				return err
			}
		}
	}
	if _, err := z.s.peek(); !errors.Is(err, io.EOF) {
		return errJSON
	}
	return io.EOF
}

// enter reads an organisation.
func (z *zitadelRows) enter() error {
	if err := z.s.expect('{'); err != nil {
		return err
	}
	z.id, z.more = "", false
	z.users = &spool{dir: z.r.opts.TempDir}
	z.links, z.meta = newSideTable(z.r.opts), newSideTable(z.r.opts)
	var d doc
	for begun := false; ; begun = true {
		more, err := z.s.more(begun, '}')
		if err != nil {
			return err
		}
		if !more {
			break
		}
		key, err := z.s.key()
		if err != nil {
			return err
		}
		switch camel(key) {
		case "orgId":
			raw, err := z.s.raw(nil, 1000)
			if err != nil {
				return err
			}
			if err := d.parse(raw); err != nil {
				return err
			}
			z.id = d.root().str()
		case "humanUsers":
			if err := z.putAside(); err != nil {
				return err
			}
		case "userLinks":
			err = z.join(z.links, partLinks, keepUserLink)
		case "userMetadata":
			err = z.join(z.meta, partMetadata, keepUserMetadata)
		default:
			err = z.lose(key, "dataOrgs.orgs[].")
		}
		if err != nil {
			return err
		}
	}
	if err := errors.Join(z.links.freeze(), z.meta.freeze()); err != nil {
		return err
	}
	in, err := z.users.reader()
	z.in = jsonStream{in}
	if err == nil {
		err = z.in.expect('[')
	}
	return err
}

// putAside copies the list of users into the spool.
func (z *zitadelRows) putAside() error {
	c, err := z.s.peek()
	if err != nil {
		return noEOF(err)
	}
	if c != '[' {
		return z.s.skip()
	}
	if z.users.size > 0 {
		return errJSON // the name twice
	}
	var e extent
	for !e.ended {
		if _, err := z.s.r.Peek(1); err != nil {
			return noEOF(err)
		}
		chunk, _ := z.s.r.Peek(z.s.r.Buffered())
		n := e.scan(chunk)
		if err := z.users.write(chunk[:n]); err != nil {
			return err
		}
		if _, err := z.s.r.Discard(n); err != nil {
			return err
		}
	}
	return nil
}

// join reads a list of rows that belong to users into a table.
func (z *zitadelRows) join(t *sideTable, p Part, keep func(value) (string, []string)) error {
	if c, err := z.s.peek(); err != nil || c != '[' {
		if err != nil {
			return noEOF(err)
		}
		return z.s.skip()
	}
	if err := z.s.expect('['); err != nil {
		return err
	}
	var d doc
	for begun := false; ; begun = true {
		more, err := z.s.more(begun, ']')
		if err != nil || !more {
			return err
		}
		z.buf, err = z.s.raw(z.buf[:0], maxRecord)
		if err != nil && !errors.Is(err, errTooLong) {
			return err
		}
		if err != nil || d.parse(z.buf) != nil {
			z.r.losses.unread[string(p)]++
			continue
		}
		key, fields := keep(d.root())
		if key == "" {
			z.r.losses.unread[string(p)]++
			continue
		}
		z.r.losses.count(d.root(), "dataOrgs.orgs[]."+string(p)+"[].")
		if err := t.put(key, pack(fields)); err != nil {
			return err
		}
	}
}

// either finds a member in camel or in snake case.
func either(v value, camelCase, snakeCase string) value {
	if w := v.get(camelCase); w.d != nil {
		return w
	}
	return v.get(snakeCase)
}

// keepUserLink reads zitadel.idp.v1.IDPUserLink.
func keepUserLink(v value) (string, []string) {
	either(v, "idpName", "idp_name").use()
	either(v, "idpType", "idp_type").use()
	return either(v, "userId", "user_id").str(), []string{
		either(v, "idpId", "idp_id").str(), either(v, "providedUserId", "provided_user_id").str(),
		either(v, "providedUserName", "provided_user_name").str(),
	}
}

// keepUserMetadata reads zitadel.management.v1.SetUserMetadataRequest.
func keepUserMetadata(v value) (string, []string) {
	return v.get("id").str(), []string{v.get("key").str(), v.get("value").str()}
}

// leave ends an organisation.
func (z *zitadelRows) leave() error {
	for p, t := range map[Part]*sideTable{partLinks: z.links, partMetadata: z.meta} {
		if n := t.unmatched(); n > 0 {
			z.r.losses.unmatched[string(p)] += n
		}
	}
	return z.Close()
}

// Close gives the organisation's temporary files back.
func (z *zitadelRows) Close() error {
	if z.users == nil {
		return nil
	}
	err := errors.Join(z.users.close(), z.links.close(), z.meta.close())
	z.users, z.links, z.meta = nil, nil, nil
	return err
}

// convert reads an element of humanUsers.
func (z *zitadelRows) convert(w *row) error {
	c := w.cmd()
	c.Silent = true
	err := fields(w.value, "", func(f field) (bool, error) {
		switch f.name {
		case "userId":
			return true, f.text(&c.UserID)
		case "state":
			return true, f.state(&c.State)
		case "user":
			return true, z.human(f.value, c)
		}
		return false, nil
	})
	if err != nil {
		return &rowError{err}
	}
	switch c.State {
	case domain.StateDeleted:
		return w.skip("deleted")
	case domain.StateSuspended:
		c.State = domain.StateInactive
	}
	links, err := z.links.get(c.UserID)
	if err != nil {
		return err
	}
	for _, b := range links {
		f := unpack(b)
		config := f[0]
		if to, ok := w.r.opts.Map.IDPs[config]; ok {
			config = to
		}
		w.linkTo(config, f[1], f[2])
	}
	entries, err := z.meta.get(c.UserID)
	if err != nil {
		return err
	}
	for _, b := range entries {
		f := unpack(b)
		v, ok := anyBase64(f[1])
		if !ok {
			return &rowError{badType("metadata", "base64")}
		}
		c.Metadata = append(c.Metadata, domain.Metadata{Key: f[0], Value: v})
	}
	return nil
}

// human reads the user; the id of the envelope is the one that counts.
func (z *zitadelRows) human(v value, c *domain.ImportHuman) error {
	id := c.UserID
	err := readHuman(v, c)
	if id != "" {
		c.UserID = id
	}
	return err
}

// spool holds bytes until they are read: in memory, then in a file.
type spool struct {
	dir  string
	size int64
	mem  bytes.Buffer
	file *os.File
	w    *bufio.Writer
}

func (s *spool) write(b []byte) (err error) {
	s.size += int64(len(b))
	if s.file == nil && s.mem.Len()+len(b) > spoolMemory {
		if s.file, err = temp(s.dir); err != nil {
			return err
		}
		s.w = bufio.NewWriterSize(s.file, 256<<10)
		if _, err := s.w.Write(s.mem.Bytes()); err != nil {
			return err
		}
		s.mem = bytes.Buffer{}
	}
	if s.file != nil {
		_, err = s.w.Write(b)
		return err
	}
	s.mem.Write(b)
	return nil
}

// reader returns what was written; of nothing, an empty list.
func (s *spool) reader() (*bufio.Reader, error) {
	if s.size == 0 {
		return bufio.NewReader(bytes.NewReader([]byte("[]"))), nil
	}
	if s.file == nil {
		return bufio.NewReader(&s.mem), nil
	}
	if err := s.w.Flush(); err != nil {
		return nil, err
	}
	_, err := s.file.Seek(0, io.SeekStart)
	return bufio.NewReaderSize(s.file, 256<<10), err
}

func (s *spool) close() error {
	if s.file == nil {
		return nil
	}
	return closeTemp(s.file)
}
