package source

import (
	"bufio"
	"bytes"
	"cmp"
	"container/heap"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"
	"sort"
)

// sideMemory is how many bytes of a side table are held in memory before it
// moves to disk.
const sideMemory = 24 << 20

// sideBlock is how far apart the index's entries are, in bytes: what one look-up
// reads from disk.
const sideBlock = 4 << 10

// sideTable holds the rows of a second file, to be found by the rows of the
// first: Auth0's hashes by user id, WordPress' metadata by user. A key may have
// several rows; they come back in the order they went in.
//
// Rows are put in, then freeze is called, then they are looked up. Up to
// memory bytes stay in memory; more are sorted in runs in a temporary file,
// merged, and looked up through a sparse index, about 1/100 of the rows' size.
// So the order of the first file is kept, whatever the size of the second.
type sideTable struct {
	memory int
	dir    string // for temporary files; "" is the system's

	// While rows go in, and afterwards if they fit: arena holds them, rows
	// says where. Sorted by freeze.
	arena []byte
	rows  []sideRow

	// Runs that went to disk, sorted each.
	runs []*os.File

	// After the merge: the sorted rows, and the first key of each block.
	merged *os.File
	size   int64
	index  []sideMark

	count   int64
	matched int64
	// aliases is how many of the rows are there again under another key.
	aliases int64
	// seen has a bit for each row that a look-up has met.
	seen  []uint64
	block []byte
	found [][]byte
}

// sideRow is a row in the arena: the key, then the value.
type sideRow struct{ at, key, val uint32 }

type sideMark struct {
	key  string
	at   int64
	rank int64 // how many rows are before
}

func newSideTable(o Options) *sideTable {
	return &sideTable{memory: cmp.Or(o.joinMemory, sideMemory), dir: o.TempDir}
}

// put adds a row.
func (t *sideTable) put(key string, val []byte) error {
	const row = 12 // a sideRow
	if len(t.arena)+len(key)+len(val)+row*(len(t.rows)+1) > t.memory && len(t.rows) > 0 {
		if err := t.spill(); err != nil {
			return err
		}
	}
	t.rows = append(t.rows, sideRow{uint32(len(t.arena)), uint32(len(key)), uint32(len(val))})
	t.arena = append(append(t.arena, key...), val...)
	t.count++
	return nil
}

func (t *sideTable) key(r sideRow) []byte { return t.arena[r.at : r.at+r.key] }
func (t *sideTable) val(r sideRow) []byte { return t.arena[r.at+r.key : r.at+r.key+r.val] }

func (t *sideTable) sort() {
	slices.SortFunc(t.rows, func(a, b sideRow) int {
		if c := bytes.Compare(t.key(a), t.key(b)); c != 0 {
			return c
		}
		return cmp.Compare(a.at, b.at)
	})
}

// temp opens a file that is gone from the folder at once where the system
// allows it, so that nothing stays behind, however the process ends.
func temp(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "muster-import-*")
	if err == nil {
		_ = os.Remove(f.Name())
	}
	return f, err
}

// closeTemp closes what temp opened. Removing a file that is gone is no error.
func closeTemp(f *os.File) error {
	err := f.Close()
	_ = os.Remove(f.Name())
	return err
}

func (t *sideTable) spill() error {
	t.sort()
	f, err := temp(t.dir)
	if err != nil {
		return err
	}
	t.runs = append(t.runs, f)
	w := bufio.NewWriterSize(f, 64<<10)
	for _, r := range t.rows {
		if err := writeRow(w, t.key(r), t.val(r)); err != nil {
			return err
		}
	}
	t.arena, t.rows = t.arena[:0], t.rows[:0]
	return w.Flush()
}

func writeRow(w *bufio.Writer, key, val []byte) error {
	var n [2 * binary.MaxVarintLen64]byte
	b := binary.AppendUvarint(binary.AppendUvarint(n[:0], uint64(len(key))), uint64(len(val)))
	_, err := w.Write(b)
	if err == nil {
		_, err = w.Write(key)
	}
	if err == nil {
		_, err = w.Write(val)
	}
	return err
}

// freeze ends the putting.
func (t *sideTable) freeze() error {
	t.seen = make([]uint64, (t.count+63)/64)
	if len(t.runs) == 0 {
		t.sort()
		return nil
	}
	if err := t.spill(); err != nil {
		return err
	}
	t.arena, t.rows = nil, nil
	return t.merge()
}

// run is a sorted file being merged.
type run struct {
	r        *bufio.Reader
	order    int
	key, val []byte
}

func (r *run) next() error {
	n, err := binary.ReadUvarint(r.r)
	if err != nil {
		return err
	}
	m, err := binary.ReadUvarint(r.r)
	if err != nil {
		return noEOF(err)
	}
	r.key = slices.Grow(r.key[:0], int(n))[:n]
	r.val = slices.Grow(r.val[:0], int(m))[:m]
	if _, err := io.ReadFull(r.r, r.key); err != nil {
		return noEOF(err)
	}
	_, err = io.ReadFull(r.r, r.val)
	return noEOF(err)
}

type runs []*run

func (h runs) Len() int { return len(h) }
func (h runs) Less(i, j int) bool {
	if c := bytes.Compare(h[i].key, h[j].key); c != 0 {
		return c < 0
	}
	return h[i].order < h[j].order
}
func (h runs) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *runs) Push(x any)   { *h = append(*h, x.(*run)) } //nolint:errcheck // the heap holds nothing else
func (h *runs) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

func (t *sideTable) merge() error {
	var h runs
	for i, f := range t.runs {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		r := &run{r: bufio.NewReaderSize(f, 64<<10), order: i}
		if err := r.next(); err != nil {
			return noEOF(err)
		}
		h = append(h, r)
	}
	heap.Init(&h)
	var err error
	if t.merged, err = temp(t.dir); err != nil {
		return err
	}
	w := bufio.NewWriterSize(t.merged, 256<<10)
	var mark int64
	for rank := int64(0); len(h) > 0; rank++ {
		r := h[0]
		if t.size >= mark {
			t.index = append(t.index, sideMark{string(r.key), t.size, rank})
			mark = t.size + sideBlock
		}
		if err := writeRow(w, r.key, r.val); err != nil {
			return err
		}
		t.size += int64(uvarintLen(len(r.key)) + uvarintLen(len(r.val)) + len(r.key) + len(r.val))
		switch err := r.next(); {
		case err == nil:
			heap.Fix(&h, 0)
		case errors.Is(err, io.EOF):
			heap.Pop(&h)
		default:
			return err
		}
	}
	for _, f := range t.runs {
		err = errors.Join(err, closeTemp(f))
	}
	t.runs = nil
	return errors.Join(err, w.Flush())
}

func uvarintLen(n int) int {
	l := 1
	for ; n >= 0x80; n >>= 7 {
		l++
	}
	return l
}

// get returns the values of a key. They are good until the next call. A nil
// table has none.
func (t *sideTable) get(key string) ([][]byte, error) {
	if t == nil || key == "" {
		return nil, nil
	}
	t.found = t.found[:0]
	if t.merged == nil {
		i := sort.Search(len(t.rows), func(i int) bool { return string(t.key(t.rows[i])) >= key })
		for ; i < len(t.rows) && string(t.key(t.rows[i])) == key; i++ {
			t.found = append(t.found, t.val(t.rows[i]))
			t.meet(int64(i))
		}
		return t.found, nil
	}
	return t.onDisk(key)
}

func (t *sideTable) onDisk(key string) ([][]byte, error) {
	// The rows of a key may begin in the block before the first mark that has it.
	b := max(sort.Search(len(t.index), func(i int) bool { return t.index[i].key >= key })-1, 0)
	at, rank := t.index[b].at, t.index[b].rank
	last := b + 1
	for last < len(t.index) && t.index[last].key <= key {
		last++
	}
	end := t.size
	if last < len(t.index) {
		end = t.index[last].at
	}
	t.block = slices.Grow(t.block[:0], int(end-at))[:end-at]
	if _, err := t.merged.ReadAt(t.block, at); err != nil {
		return nil, noEOF(err)
	}
	for p := t.block; len(p) > 0; rank++ {
		n, a := binary.Uvarint(p)
		m, c := binary.Uvarint(p[a:])
		p = p[a+c:]
		k, v := p[:n], p[n:n+m]
		p = p[n+m:]
		if string(k) == key {
			t.found = append(t.found, v)
			t.meet(rank)
		} else if string(k) > key {
			break
		}
	}
	return t.found, nil
}

func (t *sideTable) meet(rank int64) {
	word, bit := rank/64, uint64(1)<<(rank%64)
	if t.seen[word]&bit == 0 {
		t.seen[word] |= bit
		t.matched++
	}
}

// unmatched is how many rows no look-up has met.
func (t *sideTable) unmatched() int64 { return max(t.count-t.aliases-t.matched, 0) }

func (t *sideTable) close() error {
	var err error
	for _, f := range append(t.runs, t.merged) {
		if f != nil {
			err = errors.Join(err, closeTemp(f))
		}
	}
	t.runs, t.merged, t.arena, t.rows = nil, nil, nil, nil
	return err
}
