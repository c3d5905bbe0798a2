// Package jwks judges keys: it parses JSON Web Key Sets (RFC 7517) key by key, and leaves out what cannot be used.
package jwks

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
)

const (
	maxKeys    = 1000 // of a set
	maxSameKid = 4    // keys of one kid that are tried for one algorithm
	maxKidLog  = 64   // characters of a kid in a log line
)

// A Set is a parsed key set. It never changes.
type Set struct {
	keys    map[string]map[string][]Key // by kid, then by alg; a kid whose keys were all skipped is there with none
	hash    [sha256.Size]byte           // of the text that it came from
	entries int                         // in that text
	kids    []string                    // of those, each once
	usable  []Usable                    // of those, in the text's order
}

// A Key reports whether signature is its own over signed.
type Key = func(signed, signature []byte) bool

// Keys returns what the set has for kid and alg, and whether it has the kid at all. A nil Set has nothing.
func (s *Set) Keys(kid, alg string) (fit []Key, known bool) {
	if s == nil {
		return nil, false
	}
	byAlg, known := s.keys[kid]
	return byAlg[alg], known
}

// KeyIDs are the kids of the set in the order of its text, each once.
func (s *Set) KeyIDs() []string { return s.kids }

// Usable are the keys of the set that can be used, in the order of its text.
func (s *Set) Usable() []Usable { return s.usable }

// Len is how many keys the text holds, those that cannot be used included.
func (s *Set) Len() int { return s.entries }

// IsOf reports whether the set was read from text.
func (s *Set) IsOf(text []byte) bool { return s != nil && s.hash == sha256.Sum256(text) }

// A Usable is a key that can verify signatures of some algorithms.
type Usable struct {
	KeyType, KeyID string
	Algorithms     []string
}

// A Skipped is a key that the set holds and that cannot be used.
type Skipped struct{ KeyType, KeyID, Why string }

func (s Skipped) Error() string {
	return fmt.Sprintf("key with kty %q and kid %q: %s", s.KeyType, s.KeyID, s.Why)
}

// Parse reads a key set. Its frame is read leniently; a key that is broken, not supported or not safe to use is
// left out and returned as skipped. It is an error if there is no array of keys, more than 1,000 of them, or
// none usable among several. An explicitly empty array is a set: everything was withdrawn.
func Parse(text []byte) (*Set, []Skipped, error) {
	var frame map[string]json.RawMessage                                         // a map, because a struct would also take "Keys"
	if json.Unmarshal(bytes.TrimPrefix(text, []byte("\ufeff")), &frame) != nil { // the byte order mark: RFC 8259 §8.1 lets us
		return nil, nil, errors.New("not a JSON object")
	}
	var raws []json.RawMessage
	if json.Unmarshal(frame["keys"], &raws) != nil || raws == nil {
		return nil, nil, errors.New(`no "keys" array in it`)
	}
	if len(raws) > maxKeys {
		return nil, nil, fmt.Errorf("%d keys in it, at most %d are taken", len(raws), maxKeys)
	}
	set := &Set{keys: make(map[string]map[string][]Key, len(raws)), hash: sha256.Sum256(text), entries: len(raws)}
	var skipped []Skipped
	for _, raw := range raws {
		k := judge(raw)
		if set.keys[k.id] == nil {
			set.keys[k.id] = map[string][]Key{}
			if k.id != "" {
				set.kids = append(set.kids, k.id)
			}
		}
		if k.why != "" {
			skipped = append(skipped, Skipped{ForLog(k.kty), ForLog(k.id), k.why})
			continue
		}
		set.usable = append(set.usable, Usable{k.kty, k.id, k.algorithms})
		for _, alg := range k.algorithms {
			if same := set.keys[k.id][alg]; len(same) < maxSameKid {
				set.keys[k.id][alg] = append(same, verifying(alg, k.public))
			}
		}
	}
	if len(raws) > 0 && len(set.usable) == 0 {
		return nil, skipped, fmt.Errorf("none of its %d keys is usable; the first is a %w", len(raws), skipped[0])
	}
	return set, skipped, nil
}

// ForLog shortens text from outside, such as a kid, to 64 characters at most, at a rune boundary.
func ForLog(s string) string {
	n := 0
	for i := range s {
		if n == maxKidLog {
			return s[:i]
		}
		n++
	}
	return s
}
