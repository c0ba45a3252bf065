// A server or an agent of opamp-go, the protocol's reference, for tests: what comes is told on standard output, a JSON object a line; what
// it is to do comes on standard input, a line each.
package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"sync"

	"github.com/open-telemetry/opamp-go/client/types"
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
	token := flag.String("token", "", "what the agent comes by")
	name := flag.String("uid", "0102030405060708090a0b0c0d0e0f10", "the agent's instance_uid, in hexadecimal")
	flag.Parse()
	log.SetOutput(os.Stderr)
	var act func(line string)
	if *url == "" {
		act = serve()
	} else {
		var uid types.InstanceUid
		if length, err := hex.Decode(uid[:], []byte(*name)); err != nil || length != len(uid) {
			log.Fatalf("-uid %s: 32 hexadecimal digits", *name)
		}
		act = manage(*url, *token, uid)
	}
	// Until whoever started it is gone.
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		act(lines.Text())
	}
}
