package source

import (
	"bytes"
	"errors"
	"iter"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/muster-id/muster/importer/jsontext"
)

// errJSON is what every JSON syntax error is: a report must not quote input.
var errJSON = errors.New("the JSON is malformed")

// maxDepth is how deep a record may be nested.
const maxDepth = 64

// kind is a node's JSON type.
type kind byte

const (
	null kind = iota
	boolean
	number
	text
	list
	object
)

// doc is one record as a tree. Its arena is used again for the next record:
// nothing of it may be kept without a copy. JSON, CSV and LDIF records all take
// this form, so that one walk over the nodes that nobody read gives the loss
// report, whatever the source.
type doc struct {
	nodes []node
	// plain holds the strings that had escapes in them.
	plain []byte
}

type node struct {
	kind kind
	// used says that the value was carried, or holds nothing to carry.
	used bool
	key  []byte
	// text is a string without its escapes, a number, "true" or "false", or the
	// JSON text of a list or an object.
	text []byte
	// child is the first element, next the next sibling; 0 for none.
	child, next int32
}

func (d *doc) reset() { d.nodes, d.plain = d.nodes[:0], d.plain[:0] }

func (d *doc) root() value { return value{d, 0} }

// parse reads exactly one JSON value. The tree refers to src.
func (d *doc) parse(src []byte) error {
	d.reset()
	p := parser{d: d, src: src}
	p.space()
	if _, err := p.value(0); err != nil {
		return err
	}
	p.space()
	if p.at != len(src) {
		return errJSON
	}
	return nil
}

// flat begins a record of named strings, as a CSV row is one.
func (d *doc) flat() {
	d.reset()
	d.nodes = append(d.nodes, node{kind: object})
}

// add appends a member to the object at the root of a flat record; last is the
// member before it, 0 for none.
func (d *doc) add(last int32, key, val []byte, k kind) int32 {
	i := int32(len(d.nodes))
	d.nodes = append(d.nodes, node{kind: k, key: key, text: val})
	if last == 0 {
		d.nodes[0].child = i
	} else {
		d.nodes[last].next = i
	}
	return i
}

type parser struct {
	d   *doc
	src []byte
	at  int
}

func (p *parser) space() {
	for p.at < len(p.src) {
		switch p.src[p.at] {
		case ' ', '\t', '\n', '\r':
			p.at++
		default:
			return
		}
	}
}

func (p *parser) peek() byte {
	if p.at < len(p.src) {
		return p.src[p.at]
	}
	return 0
}

func (p *parser) word(w string) error {
	if !bytes.HasPrefix(p.src[p.at:], []byte(w)) {
		return errJSON
	}
	p.at += len(w)
	return nil
}

func (p *parser) value(depth int) (int32, error) {
	if depth > maxDepth {
		return 0, errJSON
	}
	i := int32(len(p.d.nodes))
	p.d.nodes = append(p.d.nodes, node{})
	start := p.at
	var n node
	var err error
	switch c := p.peek(); {
	case c == '{' || c == '[':
		n.kind = list
		if c == '{' {
			n.kind = object
		}
		n.child, err = p.members(c, depth)
		n.text = p.src[start:p.at]
	case c == '"':
		n.kind = text
		n.text, err = p.string()
	case c == 't':
		n.kind, err = boolean, p.word("true")
		n.text = p.src[start:p.at]
	case c == 'f':
		n.kind, err = boolean, p.word("false")
		n.text = p.src[start:p.at]
	case c == 'n':
		err = p.word("null")
	default:
		n.kind = number
		err = p.number()
		n.text = p.src[start:p.at]
	}
	p.d.nodes[i] = n
	return i, err
}

// members reads the elements of a list or the members of an object and returns
// the first.
func (p *parser) members(open byte, depth int) (int32, error) {
	shut := open + 2 // ASCII: '[' and ']', '{' and '}' are two apart
	p.at++
	p.space()
	if p.peek() == shut {
		p.at++
		return 0, nil
	}
	var first, last int32
	for {
		var key []byte
		if open == '{' {
			if p.peek() != '"' {
				return 0, errJSON
			}
			var err error
			if key, err = p.string(); err != nil {
				return 0, err
			}
			if p.space(); p.peek() != ':' {
				return 0, errJSON
			}
			p.at++
			p.space()
		}
		i, err := p.value(depth + 1)
		if err != nil {
			return 0, err
		}
		p.d.nodes[i].key = key
		if first == 0 {
			first = i
		} else {
			p.d.nodes[last].next = i
		}
		last = i
		p.space()
		switch p.peek() {
		case ',':
			p.at++
			p.space()
		case shut:
			p.at++
			return first, nil
		default:
			return 0, errJSON
		}
	}
}

func (p *parser) number() error {
	n := jsontext.Number(p.src[p.at:])
	if n < 0 {
		return errJSON
	}
	p.at += n
	return nil
}

func (p *parser) string() ([]byte, error) {
	p.at++
	start := p.at
	for ; p.at < len(p.src); p.at++ {
		switch c := p.src[p.at]; {
		case c == '"':
			p.at++
			return p.src[start : p.at-1], nil
		case c == '\\':
			return p.escaped(start)
		case c < ' ':
			return nil, errJSON
		}
	}
	return nil, errJSON
}

// escaped finishes a string that has escapes, into the doc's own bytes.
func (p *parser) escaped(start int) ([]byte, error) {
	from := len(p.d.plain)
	out := append(p.d.plain, p.src[start:p.at]...) //nolint:gocritic // plain grows below, when the string is whole
	for p.at < len(p.src) {
		c := p.src[p.at]
		p.at++
		switch {
		case c == '"':
			p.d.plain = out
			return out[from:len(out):len(out)], nil
		case c < ' ':
			return nil, errJSON
		case c != '\\':
			out = append(out, c)
			continue
		}
		e := p.peek()
		p.at++
		switch e {
		case '"', '\\', '/':
			out = append(out, e)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, err := p.hex()
			if err != nil {
				return nil, err
			}
			if utf16.IsSurrogate(r) {
				// Half a pair alone becomes U+FFFD, as in encoding/json.
				whole := rune(utf8.RuneError)
				if bytes.HasPrefix(p.src[min(p.at, len(p.src)):], []byte(`\u`)) {
					back := p.at
					p.at += 2
					low, err := p.hex()
					if err != nil {
						return nil, err
					}
					if whole = utf16.DecodeRune(r, low); whole == utf8.RuneError {
						p.at = back
					}
				}
				r = whole
			}
			out = utf8.AppendRune(out, r)
		default:
			return nil, errJSON
		}
	}
	return nil, errJSON
}

func (p *parser) hex() (rune, error) {
	if p.at+4 > len(p.src) {
		return 0, errJSON
	}
	n, err := strconv.ParseUint(string(p.src[p.at:p.at+4]), 16, 16)
	if err != nil {
		return 0, errJSON
	}
	p.at += 4
	return rune(n), nil
}

// value is a place in a record. The zero value is a field that is not there;
// every method takes it.
type value struct {
	d *doc
	i int32
}

func (v value) node() *node {
	if v.d == nil {
		return &node{used: true}
	}
	return &v.d.nodes[v.i]
}

func (v value) kind() kind { return v.node().kind }

// get follows member names down. It reads nothing: what is found counts as lost
// until one of the reading methods takes it. Of a name that occurs twice it
// finds the last, as encoding/json does.
func (v value) get(path ...string) value {
	for _, name := range path {
		if v.kind() != object {
			return value{}
		}
		found := value{}
		for i := v.node().child; i != 0; i = v.d.nodes[i].next {
			if string(v.d.nodes[i].key) == name {
				found = value{v.d, i}
			}
		}
		if v = found; v.d == nil {
			return v
		}
	}
	return v
}

// path is get for an operator's dotted path. A path through a list takes its
// first element, or the one that a number names.
func (v value) path(dotted string) value {
	for dotted != "" && v.d != nil {
		// A name with dots in it, such as "custom:a.b" or a claim's URI.
		if w := v.get(dotted); w.d != nil {
			return w
		}
		name, rest, _ := strings.Cut(dotted, ".")
		if v.kind() == list {
			n, err := strconv.Atoi(name)
			if err == nil {
				dotted = rest
			} else {
				n = 0
			}
			w := value{}
			for e := range v.elements() {
				if n == 0 {
					w = e
					break
				}
				n--
			}
			v = w
			continue
		}
		v, dotted = v.get(name), rest
	}
	return v
}

// elements are the members of an object or the elements of a list.
func (v value) elements() iter.Seq[value] {
	return func(yield func(value) bool) {
		if v.kind() < list {
			return
		}
		for i := v.node().child; i != 0; i = v.d.nodes[i].next {
			if !yield(value{v.d, i}) {
				return
			}
		}
	}
}

// key is the member's own name.
func (v value) key() string { return string(v.node().key) }

// empty says that there is nothing to carry: absent, null, "", [] or {}.
func (v value) empty() bool {
	n := v.node()
	switch n.kind {
	case null:
		return true
	case text:
		return len(n.text) == 0
	case list, object:
		return n.child == 0
	}
	return false
}

// str reads a string; a number or boolean comes as its text. A list or object
// is not read, and so counts as lost.
func (v value) str() string {
	n := v.node()
	if n.kind >= list {
		return ""
	}
	n.used = true
	return string(n.text)
}

// first reads the string, or the first string of a list, as Keycloak and LDAP
// have them; further elements stay unread.
func (v value) first() string {
	if v.kind() == list {
		for e := range v.elements() {
			return e.str()
		}
	}
	return v.str()
}

// flag reads a boolean, also one that went through CSV or SQL.
func (v value) flag() bool {
	s := v.node().text
	v.use()
	switch len(s) {
	case 1:
		return s[0] == '1' || s[0]|0x20 == 't' || s[0]|0x20 == 'y'
	case 3:
		return strings.EqualFold(string(s), "yes")
	case 4:
		return strings.EqualFold(string(s), "true")
	}
	return false
}

// int reads an integer, also one in a string. ok is false when there is none.
func (v value) int() (n int64, ok bool) {
	s := v.str()
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, true
	}
	// 1.7102376e+12: how some tools write a time.
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, false
	}
	return int64(f), true
}

// json reads the value as JSON text, or a string as it is: the form that
// metadata values have.
func (v value) json() []byte {
	v.use()
	n := v.node()
	if n.kind == null {
		return nil
	}
	return bytes.Clone(n.text)
}

// use marks a value, and all that is in it, as needing no mention.
func (v value) use() {
	if v.d == nil {
		return
	}
	v.node().used = true
	for e := range v.elements() {
		e.use()
	}
}

// carried says that a value was read, or all that is in it.
func (v value) carried() bool {
	n := v.node()
	if n.used || n.kind < list || n.child == 0 {
		return n.used
	}
	for e := range v.elements() {
		if !e.carried() {
			return false
		}
	}
	return true
}

// set says that a moment is noted at all, as "verified at" columns do it.
func (v value) set() bool {
	s := v.str()
	return s != "" && s != "false" && s != "0" && !strings.HasPrefix(s, "0000-00-00")
}

var layouts = [...]string{
	time.RFC3339Nano,
	"2006-01-02 15:04:05.999999999Z07:00",
	"2006-01-02 15:04:05.999999999-07",
	"2006-01-02 15:04:05.999999999 -07:00",
	"2006-01-02 15:04:05.999999999",
	"2006-01-02T15:04:05.999999999",
	"2006-01-02",
}

// time reads a moment as databases and APIs write it; without a zone it is UTC.
func (v value) time() (time.Time, bool) {
	s := v.str()
	for _, layout := range layouts {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// peek looks at a scalar's text without reading it.
func (v value) peek() string {
	if n := v.node(); n.kind < list {
		return string(n.text)
	}
	return ""
}

// at is the nth element of a list, from 0; of a scalar it is the scalar itself.
func (v value) at(n int) value {
	if v.kind() < list {
		if n == 0 {
			return v
		}
		return value{}
	}
	for e := range v.elements() {
		if n == 0 {
			return e
		}
		n--
	}
	return value{}
}
