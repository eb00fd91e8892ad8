package source

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"strings"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
)

var ldif = &spec{convert: convertLDIF}

var errLDIF = errors.New("the LDIF entry is malformed")

// ldifReader reads the entries of an LDIF file, as RFC 2849 describes them:
// lines "attr: text" and "attr:: base64", continued on lines that begin with a
// blank, comments, entries parted by empty lines. Attribute names come in lower
// case and without options (";lang-de"); of an attribute that occurs more than
// once all values come, in a list.
type ldifReader struct {
	r    *bufio.Reader
	line int64
	// entry has the lines of an entry, unfolded.
	entry [][]byte
	text  []byte
}

func (l *ldifReader) next(d *doc) (int64, error) {
	for {
		start, err := l.read()
		if err != nil {
			return start, err
		}
		if len(l.entry) == 1 && bytes.HasPrefix(l.entry[0], []byte("version:")) {
			continue
		}
		if err := l.build(d); err != nil {
			return start, &rowError{err}
		}
		return start, nil
	}
}

// read unfolds the lines of the next entry and returns the line that it begins
// on.
func (l *ldifReader) read() (start int64, err error) {
	l.entry, l.text = l.entry[:0], l.text[:0]
	var ends []int
	size, comment, tooLong := 0, false, false
	for {
		line, err := l.r.ReadSlice('\n')
		long := errors.Is(err, bufio.ErrBufferFull)
		if err != nil && err != io.EOF && !long {
			return start, err
		}
		if len(line) == 0 && err == io.EOF {
			if len(ends) == 0 {
				return start, io.EOF
			}
			break
		}
		l.line++
		// The rest of a line that is longer than the buffer.
		whole := line
		if long {
			whole = bytes.Clone(line)
			for long {
				line, err = l.r.ReadSlice('\n')
				if long = errors.Is(err, bufio.ErrBufferFull); len(whole) <= maxRecord {
					whole = append(whole, line...)
				}
			}
			if err != nil && err != io.EOF {
				return start, err
			}
		}
		whole = bytes.TrimRight(whole, "\r\n")
		if len(whole) == 0 {
			if len(ends) > 0 {
				break
			}
			comment = false
			continue
		}
		switch {
		case whole[0] == ' ':
			if comment {
				continue
			}
			whole = whole[1:]
			if len(ends) == 0 { // nothing to continue: build says so
				start = l.line
				ends = append(ends, 0)
			}
		case whole[0] == '#':
			comment = true
			continue
		default:
			comment = false
			if len(ends) == 0 {
				start = l.line
			}
			ends = append(ends, len(l.text))
		}
		if size += len(whole); size > maxRecord {
			tooLong = true
			continue
		}
		l.text = append(l.text, whole...)
		ends[len(ends)-1] = len(l.text)
	}
	from := 0
	for _, to := range ends {
		l.entry = append(l.entry, l.text[from:to:to])
		from = to
	}
	if tooLong {
		return start, &rowError{errTooLong}
	}
	return start, nil
}

// build makes a record of the lines.
func (l *ldifReader) build(d *doc) error {
	d.flat()
	var last int32
	for _, line := range l.entry {
		name, val, ok := bytes.Cut(line, []byte{':'})
		if !ok || len(name) == 0 {
			return errLDIF
		}
		if i := bytes.IndexByte(name, ';'); i >= 0 {
			name = name[:i]
		}
		key := bytes.ToLower(name)
		switch {
		case bytes.HasPrefix(val, []byte{':'}):
			enc := bytes.TrimSpace(val[1:])
			val = make([]byte, base64.StdEncoding.DecodedLen(len(enc)))
			n, err := base64.StdEncoding.Decode(val, enc)
			if err != nil {
				return errLDIF
			}
			val = val[:n]
		case bytes.HasPrefix(val, []byte{'<'}):
			// The value stands in a file elsewhere, which nobody follows.
			val = bytes.TrimSpace(val)
		default:
			val = bytes.TrimLeft(val, " ")
		}
		if string(key) == "version" && last == 0 {
			continue
		}
		last = d.append(last, key, val)
	}
	return nil
}

// append adds a member to a flat record; if its name is there already, the two
// become a list.
func (d *doc) append(last int32, key, val []byte) int32 {
	for i := d.nodes[0].child; i != 0; i = d.nodes[i].next {
		if !bytes.Equal(d.nodes[i].key, key) {
			continue
		}
		if d.nodes[i].kind == text {
			first := int32(len(d.nodes))
			d.nodes = append(d.nodes, node{kind: text, text: d.nodes[i].text})
			d.nodes[i].kind, d.nodes[i].text, d.nodes[i].child = list, nil, first
		}
		e := d.nodes[i].child
		for d.nodes[e].next != 0 {
			e = d.nodes[e].next
		}
		d.nodes[e].next = int32(len(d.nodes))
		d.nodes = append(d.nodes, node{kind: text, text: val})
		return last
	}
	return d.add(last, key, val, text)
}

// personClasses are the object classes that people have.
var personClasses = []string{"person", "inetorgperson", "organizationalperson", "posixaccount", "user", "account", "simplesecurityobject"}

func convertLDIF(w *row) error {
	if v := w.get("changetype"); v.d != nil && !strings.EqualFold(v.str(), "add") {
		return w.skip("a change, not an entry")
	}
	person, classes := false, w.get("objectclass")
	for _, c := range classes.scalars() {
		if strings.EqualFold(c, "computer") {
			return w.skip("not a person")
		}
		for _, p := range personClasses {
			person = person || strings.EqualFold(c, p)
		}
	}
	login := firstThere(w.get("uid"), w.get("samaccountname"), w.get("userprincipalname"))
	if classes.d == nil {
		person = login.d != nil || w.get("mail").d != nil
	}
	if !person {
		return w.skip("not a person")
	}
	classes.use()
	if guid := w.get("objectguid"); guid.d != nil && w.get("entryuuid").empty() {
		guid.node().text = []byte(hex.EncodeToString(guid.node().text))
	}
	w.source(w.get("entryuuid"), w.get("objectguid"), w.get("ipauniqueid"), w.get("nsuniqueid"))
	full := firstThere(w.get("cn"), w.get("displayname"), w.get("gecos"))
	w.names(w.get("givenname"), w.get("sn"), full, firstThere(w.get("displayname"), w.get("cn")), value{})
	if w.cmd().Profile.DisplayName != "" && w.get("cn").peek() == w.get("displayname").peek() {
		w.ignore("cn", "displayname")
	}
	w.userName(login)
	w.email(w.get("mail"), value{})
	w.phones(value{}, w.get("mobile"), w.get("telephonenumber"))
	w.language(w.get("preferredlanguage"))
	if n, ok := w.get("useraccountcontrol").int(); ok && n&2 != 0 {
		w.cmd().State = domain.StateInactive
	}
	if s := w.get("nsaccountlock").str(); strings.EqualFold(s, "true") {
		w.cmd().State = domain.StateLocked
	}
	if w.get("pwdaccountlockedtime").set() {
		w.cmd().State = domain.StateLocked
	}
	if w.get("pwdreset").flag() {
		w.cmd().ChangeRequired = true
	}
	w.ldapPasswords(w.get("userpassword"))
	w.cmd().ChangeRequired = w.cmd().ChangeRequired && w.cmd().HashedPassword != ""
	return nil
}

// scalars are the texts of a list, or the one text.
func (v value) scalars() (texts []string) {
	if v.kind() < list {
		if v.d != nil {
			texts = append(texts, v.peek())
		}
		return texts
	}
	for e := range v.elements() {
		texts = append(texts, e.peek())
	}
	return texts
}

// ldapPasswords takes the first value that can be verified.
func (w *row) ldapPasswords(v value) {
	v.use()
	var last error
	for _, s := range v.scalars() {
		if !strings.HasPrefix(s, "{") {
			// Wrapped once more than the "::" says.
			if b, err := base64.StdEncoding.DecodeString(s); err == nil && bytes.HasPrefix(b, []byte{'{'}) {
				s = string(b)
			}
		}
		encoded, err := password.FromLDAP(s)
		if err == nil {
			w.hash(encoded, nil)
			return
		}
		last = err
	}
	if last != nil {
		w.hash("", last)
	}
}
