package pages

// Catalogues are the texts by language and key.
func Catalogues() map[string]catalogue { return catalogues }
