// A server or an agent of opamp-go, the protocol's reference, for tests: what comes is told on standard output, a JSON object a line; what
// it is to do comes on standard input, a line each.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"sync"
)

var output sync.Mutex

// Tells one thing: {"<what>": ...}.
func tell(what string, value any) {
	line, err := json.Marshal(map[string]any{what: value})
	if err != nil {
		log.Fatal(err)
	}
	output.Lock()
	defer output.Unlock()
	fmt.Println(string(line))
}

func main() {
	url := flag.String("url", "", "be an agent of the server at this URL, instead of a server")
	flag.Parse()
	log.SetOutput(os.Stderr)
	var act func(line string)
	if *url == "" {
		act = serve()
	} else {
		act = manage(*url)
	}
	// Until whoever started it is gone.
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		act(lines.Text())
	}
}
