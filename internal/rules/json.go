package rules

import (
	"bytes"
	"iter"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// scalar reads a string, number or boolean; ok is false for anything else, and for a number beyond what is compared.
func scalar(v jsontext.Value) (s value, ok bool) {
	switch s.kind = v.Kind(); s.kind {
	case '"':
		text, err := jsontext.AppendUnquote(nil, v)
		s.text, ok = string(text), err == nil
	case 't', 'f':
		ok = true
	case '0':
		s.text, ok = number(string(v))
	}
	return s, ok
}

// number spells a JSON number in the one way that all of its value have: its digits without zeros at either end, and the
// power of ten that they are multiplied with. So 1, 1.0 and 10e-1 are the same, and no digit is lost, as float64 would.
func number(text string) (canonical string, ok bool) {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(text), "e")
	power := 0
	if exponent != "" {
		var err error
		if power, err = strconv.Atoi(exponent); err != nil || power > 1e6 || power < -1e6 {
			return "", false
		}
	}
	sign := ""
	if rest, negative := strings.CutPrefix(mantissa, "-"); negative {
		sign, mantissa = "-", rest
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	power -= len(fraction)
	trimmed := strings.TrimRight(digits, "0")
	if trimmed == "" {
		return "0", true
	}
	return sign + trimmed + "e" + strconv.Itoa(power+len(digits)-len(trimmed)), true
}

// elements are those of an array, none of anything else. The text was parsed before.
func elements(v jsontext.Value) iter.Seq[jsontext.Value] {
	return func(yield func(jsontext.Value) bool) {
		if v.Kind() != '[' {
			return
		}
		d := jsontext.NewDecoder(bytes.NewBuffer(v))
		for _, _ = d.ReadToken(); d.PeekKind() != ']'; {
			element, err := d.ReadValue()
			if err != nil || !yield(element) {
				return
			}
		}
	}
}

// descend goes one step of a JSON Pointer: to a member of an object, or to an element of an array (RFC 6901 §4). It returns
// nothing where there is none.
func descend(v jsontext.Value, step string) jsontext.Value {
	switch v.Kind() {
	case '[':
		index, err := strconv.Atoi(step)
		if err != nil || strconv.Itoa(index) != step {
			return nil
		}
		for element := range elements(v) {
			if index == 0 {
				return element
			}
			index--
		}
	case '{':
		d := jsontext.NewDecoder(bytes.NewBuffer(v))
		for _, _ = d.ReadToken(); d.PeekKind() != '}'; {
			name, err := d.ReadToken()
			if err != nil {
				return nil
			}
			found := name.String() == step
			member, err := d.ReadValue()
			if err != nil {
				return nil
			}
			if found {
				return member
			}
		}
	}
	return nil
}

// pointer splits a JSON Pointer into its steps (RFC 6901 §3); ok is false if it is none.
func pointer(text string) (steps []string, ok bool) {
	for step := range strings.SplitSeq(text[1:], "/") {
		for rest := step; ; {
			_, after, escaped := strings.Cut(rest, "~")
			if !escaped {
				break
			}
			if after == "" || after[0] != '0' && after[0] != '1' {
				return nil, false
			}
			rest = after[1:]
		}
		steps = append(steps, strings.NewReplacer("~1", "/", "~0", "~").Replace(step))
	}
	return steps, true
}
