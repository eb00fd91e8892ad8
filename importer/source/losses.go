package source

import (
	"maps"
	"strings"
)

// maxPaths bounds how many distinct names a loss report has in each list.
const maxPaths = 1000

// other is under what everything is counted that does not fit any more.
const other = "…"

// Losses says what of a source did not become part of a command. It holds
// names and numbers, and no value of the source.
type Losses struct {
	// Fields counts, by path in the source, the rows in which a value stood
	// there that was not carried. List elements are "[]"; a name that looks
	// like data (with "@", all digits, over 64 bytes …) is "*".
	Fields map[string]int64 `json:"fields,omitempty"`
	// Skipped counts, by reason, the rows that are no person to import.
	Skipped map[string]int64 `json:"skipped,omitempty"`
	// Hashes counts, by reason, the password hashes that nobody here could
	// verify: these people need a reset.
	Hashes map[string]int64 `json:"hashes,omitempty"`
	// Factors counts, by reason, the second factors that could not be taken.
	Factors map[string]int64 `json:"factors,omitempty"`
	// Providers counts the links by provider for which no configuration id
	// was given: the provider's own name was used as one.
	Providers map[string]int64 `json:"providers,omitempty"`
	// Unmatched counts, by part, the rows of second files that no user has.
	Unmatched map[string]int64 `json:"unmatched,omitempty"`
	// Unread counts, by part, the rows of second files that are malformed or
	// have no key.
	Unread map[string]int64 `json:"unread,omitempty"`
}

// losses is what a reader counts.
type losses struct {
	fields, skipped, hashes, factors, providers, unmatched, unread map[string]int64
	path                                                           []byte
	// met has the paths that the current row was counted for.
	met map[string]bool
}

func newLosses() *losses {
	m := func() map[string]int64 { return map[string]int64{} }
	return &losses{m(), m(), m(), m(), m(), m(), m(), nil, map[string]bool{}}
}

func (l *losses) report() Losses {
	return Losses{
		Fields: maps.Clone(l.fields), Skipped: maps.Clone(l.skipped), Hashes: maps.Clone(l.hashes),
		Factors: maps.Clone(l.factors), Providers: maps.Clone(l.providers),
		Unmatched: maps.Clone(l.unmatched), Unread: maps.Clone(l.unread),
	}
}

// count walks a record and counts what nobody has read.
func (l *losses) count(v value, prefix string) {
	clear(l.met)
	l.path = append(l.path[:0], prefix...)
	l.walk(v)
}

func (l *losses) walk(v value) {
	n := v.node()
	if n.used {
		return
	}
	if n.kind < list {
		if !v.empty() {
			if path := string(l.path); !l.met[path] {
				l.met[path] = true
				l.add(path)
			}
		}
		return
	}
	back := len(l.path)
	for e := range v.elements() {
		if e.node().used {
			continue
		}
		if n.kind == list {
			l.path = append(l.path, "[]"...)
		} else {
			if back > 0 && l.path[back-1] != '.' {
				l.path = append(l.path, '.')
			}
			l.path = append(l.path, name(e.node().key)...)
		}
		l.walk(e)
		l.path = l.path[:back]
	}
}

func (l *losses) add(path string) { tally(l.fields, path) }

// tally counts in a map that does not grow without bound.
func tally(m map[string]int64, key string) {
	if _, there := m[key]; !there && len(m) >= maxPaths {
		key = other
	}
	m[key]++
}

// name returns a member's name for a report, or "*" if it looks like data: in
// some sources the members of an object are named after people or their ids.
func name(key []byte) string {
	if len(key) == 0 || len(key) > 64 {
		return "*"
	}
	digits := 0
	for _, c := range key {
		switch {
		case c == '@' || c < ' ':
			return "*"
		case '0' <= c && c <= '9':
			digits++
		}
	}
	// Ids in hexadecimal or decimal are half digits or more.
	if digits == len(key) || digits > 4 && 2*digits >= len(key) || digits > 6 {
		return "*"
	}
	return strings.ToValidUTF8(string(key), "�")
}
