package fleet

// Failures is how many calls to the Store failed in a row.
func (f *Fleet) Failures() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rest.Failures
}
