module ground

go 1.24
