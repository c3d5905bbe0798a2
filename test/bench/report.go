package main

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
)

// A column of a table is a measure and what of its samples is told.
type column struct {
	title, measure string
	of             func([]float64) float64
}

// report is everything as Markdown.
func (b *bench) report(list []contestant, rounds int, without, machine string) string {
	var w strings.Builder
	fmt.Fprintf(&w, "%s\n\n| | versions |\n|---|---|\n", machine)
	for _, c := range list {
		fmt.Fprintf(&w, "| %s | %s |\n", c.name, c.version)
	}
	fmt.Fprintf(&w, "\nA figure is the median, except where something else is said; in brackets the lowest and the highest of %d rounds; then how many times hello-world's it is.\n", rounds)

	fmt.Fprintf(&w, "\n### A decision: CPU time, in us\n\nA round is %d tokens that the process has not seen, in blocks of %d, and counts with its median block.\n\n", blocks*inBlock, inBlock)
	b.table(&w, list, []column{{"EdDSA", cpuEdDSA, median}, {"RS256", cpuRS256, median}})

	fmt.Fprintf(&w, "\n### From the start of the process to its first decision, in ms\n\nOver TLS with %d roots.\n\n", roots)
	b.table(&w, list, []column{{"plain HTTP, same machine", startPlain, median}, {"TLS, same machine", startNear, median},
		{fmt.Sprintf("TLS, %d ms away", away.Milliseconds()), startFar, median}})

	fmt.Fprintf(&w, "\n### At a CPU share of %s from the end of INIT, in ms\n\n", shareOfCPU)
	if without != "" {
		fmt.Fprintln(&w, without)
	} else {
		fmt.Fprintf(&w, "1.4 ms of each 20 ms; %d starts, each with %d decisions after %d ms of rest. The bracket holds the lowest and the highest of all.\n\n", rounds*shared, rests, rest.Milliseconds())
		b.table(&w, list, []column{{"first decision: mean", first, mean}, {"90th percentile", first, p90},
			{"after a rest: mean", rested, mean}, {"90th percentile", rested, p90}})
		fmt.Fprintf(&w, "\nThis authorizer when its keys are due, with the issuer and the table of shared keys next door, over TLS; %d starts of each:\n\n| | median | 90th percentile | most |\n|---|---:|---:|---:|\n", rounds*shared)
		for _, measure := range []string{dueAlone, dueShared} {
			samples := b.samples[sampled{ours, measure}]
			fmt.Fprintf(&w, "| %s | %.0f | %.0f | %.0f |\n", measure, median(samples), p90(samples), slices.Max(samples))
		}
	}

	fmt.Fprintf(&w, "\n### Peak of resident memory, in MB\n\nAfter %d decisions.\n\n", 2*(warmUp+blocks*inBlock))
	b.table(&w, list, []column{{"peak", memory, median}})

	w.WriteString("\n### Aims\n\n| | aim | measured |\n|---|---|---|\n")
	ratio := func(measure, to string) float64 {
		return median(b.samples[sampled{ours, measure}]) / median(b.samples[sampled{to, measure}])
	}
	aims := []struct {
		what     string
		measured float64
		aim      float64
		unit     string
	}{
		{"CPU of an EdDSA decision, times hello-world's", ratio(cpuEdDSA, hello), 1.08, ""},
		{"CPU of an RS256 decision, times hello-world's", ratio(cpuRS256, hello), 1, ""},
		{"start over TLS, times that of " + keyfunc, ratio(startNear, keyfunc), 1.1, ""},
		{"first decision at " + shareOfCPU + ": mean", mean(b.samples[sampled{ours, first}]), 2, " ms"},
		{"first decision at " + shareOfCPU + ": 90th percentile", p90(b.samples[sampled{ours, first}]), 3.5, " ms"},
	}
	for _, a := range aims {
		verdict := "met"
		switch {
		case math.IsNaN(a.measured):
			verdict = "not measured"
		case a.measured > a.aim:
			verdict = "missed"
		}
		fmt.Fprintf(&w, "| %s | at most %v%s | %.2f%s, %s |\n", a.what, a.aim, a.unit, a.measured, a.unit, verdict)
	}
	return w.String()
}

func (b *bench) table(w *strings.Builder, list []contestant, columns []column) {
	w.WriteString("|")
	for _, col := range columns {
		fmt.Fprintf(w, " | %s", col.title)
	}
	w.WriteString(" |\n|---" + strings.Repeat("|---:", len(columns)) + "|\n")
	for _, c := range list {
		fmt.Fprintf(w, "| %s", c.name)
		for _, col := range columns {
			fmt.Fprintf(w, " | %s", b.cell(c, col))
		}
		w.WriteString(" |\n")
	}
}

func (b *bench) cell(c contestant, col column) string {
	key := sampled{c.name, col.measure}
	samples := b.samples[key]
	if len(samples) == 0 {
		return b.remarks[key]
	}
	value := col.of(samples)
	number := func(v float64) string {
		if v >= 100 {
			return fmt.Sprintf("%.0f", v)
		}
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("**%s** (%s to %s) %.2f", number(value), number(slices.Min(samples)), number(slices.Max(samples)),
		value/col.of(b.samples[sampled{hello, col.measure}]))
}

// Of no samples all of these are NaN.

func median(samples []float64) float64 { return quantile(samples, 0.5) }
func p90(samples []float64) float64    { return quantile(samples, 0.9) }

func mean(samples []float64) float64 {
	sum := 0.0
	for _, s := range samples {
		sum += s
	}
	return sum / float64(len(samples))
}

// quantile lies between the two samples that are nearest to it.
func quantile(samples []float64, q float64) float64 {
	if len(samples) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(samples))
	at := q * float64(len(s)-1)
	low := int(at)
	high := min(low+1, len(s)-1)
	return s[low] + (at-float64(low))*(s[high]-s[low])
}

// The tables stand between these lines of the page; what is around them is written by hand.
const (
	beginning = "<!-- written by make compare: from here -->\n"
	end       = "<!-- to here -->\n"
)

// insert replaces the tables of a page.
func insert(page, tables string) error {
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, begins := strings.Cut(string(text), beginning)
	_, after, ends := strings.Cut(rest, end)
	if !begins || !ends {
		return fmt.Errorf("writing %s: it lacks the lines %q and %q, which the tables stand between", page, beginning, end)
	}
	return os.WriteFile(page, []byte(before+beginning+"\n"+tables+"\n"+end+after), 0o644)
}
