package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
)

// show writes the report for eyes: every route, open ones first, the functions, then the findings, the worst first.
func show(to io.Writer, r *Report) error {
	w := bufio.NewWriter(to)
	for _, api := range r.APIs {
		for _, stage := range api.Stages {
			fmt.Fprintf(w, "%s API %s (%s), stage %s, %d routes\n", api.Kind, plain(api.ID), plain(api.Name), plain(stage.Name), len(stage.Routes))
			routes := slices.Clone(stage.Routes)
			slices.SortStableFunc(routes, func(a, b Route) int {
				switch {
				case a.open() == b.open():
					return 0
				case a.open():
					return -1
				default:
					return 1
				}
			})
			for _, route := range routes {
				asks := ""
				switch {
				case route.open():
					asks = "OPEN"
				case route.Authorizer != nil:
					asks = route.Authorizer.Name
				case route.Message:
					asks = "after $connect"
				default:
					asks = "preflight, answered by API Gateway"
				}
				fmt.Fprintf(w, "  %-40s %s\n", plain(route.Name), plain(asks))
			}
		}
	}
	for _, f := range r.Functions {
		if !f.Ours {
			continue
		}
		fmt.Fprintf(w, "authorizer %s: %s", f.name, plain(f.Architecture))
		if f.Release != "" {
			fmt.Fprintf(w, ", release %s", plain(f.Release))
		}
		if f.Reserved != nil {
			fmt.Fprintf(w, ", reserved concurrency %d", *f.Reserved)
		}
		if f.Retention > 0 {
			fmt.Fprintf(w, ", logs kept %d days", f.Retention)
		}
		fmt.Fprintln(w)
	}
	counts := map[level]int{}
	for _, f := range r.Findings {
		counts[f.Level]++
		fmt.Fprintf(w, "%-8s %s", f.Level, plain(strings.TrimPrefix(f.Where+": "+f.What, ": ")))
		if f.Do != "" {
			fmt.Fprintf(w, "\n         -> %s", plain(f.Do))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "account %s, %s: %d open, %d wrong, %d unknown\n", cmp.Or(r.Account, "unknown"), cmp.Or(r.Region, "no region"), counts[open], counts[wrong], counts[unknown])
	if counts[unknown] > 0 {
		fmt.Fprintln(w, "This audit is not whole: what is unknown above may be anything.")
	}
	return w.Flush()
}

// plain keeps a terminal from obeying what others have written.
func plain(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f && c < 0xa0 || c >= 0x200e && c <= 0x200f || c >= 0x202a && c <= 0x202e || c >= 0x2066 && c <= 0x2069 {
			return '?'
		}
		return c
	}, s)
}
